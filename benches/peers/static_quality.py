"""Signal to quantization noise of espalier's deployed files and of ONNX Runtime's `quantize_static`, on the same samples.

FOLDER holds what `cargo run --release -p espalier-deploy --example nine_models -- DATA 64 "" FOLDER` writes. For each output
of each model: the signal's mean square to that of the difference from the float file, in dB, over the samples of comparison;
literal arithmetic (graph optimizations off) and the runtime's defaults. `quantize_static`: QDQ, per channel, int8 weights,
uint8 activations, smallest and largest value, on the samples that espalier was calibrated with.
"""
import argparse
import pathlib
import tempfile

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from onnxruntime import quantization

onnxruntime.set_default_logger_severity(3)


def feeds(path, batch):
    """The samples in batches, with what else a model takes."""
    with np.load(path) as arrays:
        (name,) = arrays.files
        samples = arrays[name]
    for start in range(0, len(samples), batch):
        part = {name: samples[start : start + batch]}
        if path.name.startswith("silero"):
            part |= {"state": np.zeros((2, len(part[name]), 128), np.float32), "sr": np.array(16000)}
        yield part


class Reader(quantization.CalibrationDataReader):
    def __init__(self, path, batch):
        self.batches = feeds(path, batch)

    def get_next(self):
        return next(self.batches, None)


def load(original):
    """The float model, weights taken off its inputs: what is an input too may be replaced, and the runtime folds it into nothing."""
    model = onnx.load(original)
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in stored]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, 4)
    return model


def quantize_static(original, target, reader):
    """The peer's file, prepared as its documentation asks for."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared, raised = (pathlib.Path(scratch) / f"{kind}.onnx" for kind in ("prepared", "raised"))
        model = load(original)
        # Scales per channel need operator set 13.
        onnx.save(onnx.version_converter.convert_version(model, 13) if model.opset_import[0].version < 13 else model, raised)
        try:
            quantization.shape_inference.quant_pre_process(str(raised), str(prepared))
        except Exception:  # Symbolic shape inference does not know every graph; the rest does without.
            quantization.shape_inference.quant_pre_process(str(raised), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )


def run(model, path, batch, literal):
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if literal else level.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    parts = [session.run(names, part) for part in feeds(path, batch)]
    return {name: np.concatenate([part[i].ravel() for part in parts]) for i, name in enumerate(names)}


def decibels(signal, other):
    noise = np.sum((signal.astype(np.float64) - other) ** 2)
    return 10 * np.log10(np.sum(signal.astype(np.float64) ** 2) / noise) if noise else np.inf


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    print("| model | output | espalier literal / default, dB | quantize_static literal / default, dB | literal, difference |")
    print("|---|---|---|---|---|")
    differences = []
    for deployed in sorted(args.folder.glob("*.deployed.onnx")):
        name = deployed.name.removesuffix(".deployed.onnx")
        if args.only not in name:
            continue
        calibration, test = (args.folder / f"{name}.{kind}.npz" for kind in ("calibration", "test"))
        batch = 1 if name.startswith("ultraface") else 8
        peer = args.folder / f"{name}.static.onnx"
        original = args.models / f"{name}.onnx"
        if not peer.exists():
            quantize_static(original, peer, Reader(calibration, batch))
        exact = run(original, test, batch, True)
        ours, theirs = ([run(model, test, batch, literal) for literal in (True, False)] for model in (deployed, peer))
        for output in exact:
            a, b = ([decibels(exact[output], result[output]) for result in results] for results in (ours, theirs))
            differences.append(a[0] - b[0])
            print(f"| {name} | {output} | {a[0]:.2f} / {a[1]:.2f} | {b[0]:.2f} / {b[1]:.2f} | {a[0] - b[0]:+.2f} |", flush=True)
    print(f"\nMedian of the differences {np.median(differences):+.2f} dB, smallest {min(differences):+.2f} dB.")


if __name__ == "__main__":
    main()
