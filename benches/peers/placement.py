"""What deployed files run on integers in ONNX Runtime, and how fast they are beside float and beside `quantize_static`.

WORK holds what `cargo run --release -p espalier-deploy --example nine_models -- DATA 64 "" WORK` writes (samples of
calibration of the nine models); four more networks are made here (placement_networks.py). For each: a recipe that
quantizes and deploys, and `quantize_static` (QDQ, per channel, int8 weights, uint8 activations, smallest and largest value),
both on the same samples; the nodes of the graphs that ONNX Runtime makes of both files with its default optimizations; and
the time of one sample of the float file (weights taken off its inputs, so that the runtime folds them) and of both, in turn
in one process on one thread (median of the rounds, best round in brackets). What lies in WORK is not made again.
`ORT_DYLIB_PATH` must name the runtime for espalier.
"""
import argparse
import collections
import json
import pathlib
import statistics
import subprocess
import time

import numpy as np
import onnx
import onnxruntime
import placement_networks
from onnxruntime import quantization
from static_quality import load, quantize_static

onnxruntime.set_default_logger_severity(3)

# Names under which the runtime's fused and integer operators are known in ONNX.
LAYERS = {
    "Conv": ["Conv", "QLinearConv", "FusedConv", "NhwcFusedConv", "ConvInteger"],
    "Gemm": ["Gemm", "QGemm", "FusedGemm"],
    "MatMul": ["MatMul", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "FusedMatMul"],
    "LSTM": ["LSTM", "DynamicQuantizeLSTM"],
}
KNOWN_AS = {name: known for known, names in LAYERS.items() for name in names}
INTEGER = {"QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"}
# What moves elements or computes shapes.
MOVES = set(
    "Reshape Flatten Transpose Squeeze Unsqueeze Slice Gather Pad Identity Cast Shape Size Constant ConstantOfShape Expand Split "
    "If Loop Equal Not And Or Where ReorderInput ReorderOutput DepthToSpace SpaceToDepth Resize Tile Range".split()
)
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
BYTES = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


def options(threads=1):
    out = onnxruntime.SessionOptions()
    out.intra_op_num_threads = out.inter_op_num_threads = threads
    return out


def optimized(path, target):
    """The graph that the runtime makes of a file."""
    setting = options()
    setting.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(path), setting, providers=["CPUExecutionProvider"])
    return onnx.load(target)


def count(graph):
    """Nodes on integers and in float by operator, and conversions between the two."""
    out = {"integer": collections.Counter(), "float": collections.Counter(), "conversions": 0}
    count_in(graph, {}, out)
    return out


def count_in(graph, kinds, out):
    """Adds a graph's nodes; answers the types of its outputs."""
    kinds = dict(kinds)
    stored = {tensor.name for tensor in graph.initializer}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.value_info]}
    for node in graph.node:
        branches = [count_in(attribute.g, kinds, out) for attribute in node.attribute if attribute.HasField("g")]
        known = KNOWN_AS.get(node.op_type, node.op_type.removeprefix("QLinear"))
        fed = [kinds.get(name) for name in node.input if name and name not in stored]
        made = next((kind for of in (FLOATS, BYTES) for kind in fed if kind in of), None)
        if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
            out["conversions"] += 1
            made = onnx.TensorProto.UINT8
        elif node.op_type == "DequantizeLinear":
            out["conversions"] += 1
            made = onnx.TensorProto.FLOAT
        elif node.op_type.startswith("QLinear") or node.op_type in INTEGER:
            out["integer"][known] += 1
            floats = node.op_type == "MatMulIntegerToFloat" or node.op_type == "QGemm" and len(node.input) < 8
            made = onnx.TensorProto.FLOAT if floats else onnx.TensorProto.UINT8
        elif node.op_type == "Cast":
            made = next(attribute.i for attribute in node.attribute if attribute.name == "to")
        elif node.op_type in ("Shape", "Size", "Equal", "Not"):
            made = onnx.TensorProto.INT64
        elif node.op_type not in MOVES and made in FLOATS:
            out["float"][known] += 1
        elif node.op_type not in MOVES and made in BYTES:
            out["integer"][known] += 1
        for name, *branch in zip(node.output, *branches):
            kinds.setdefault(name, next((kind for kind in branch if kind), made))
    return [kinds.get(output.name) for output in graph.output]


def all_samples(path):
    with np.load(path) as arrays:
        return dict(arrays)


def some(samples, first, last):
    """Samples first..last; what has another axis for them, or none, goes along."""
    out = {}
    for name, array in samples.items():
        if name == "state":
            out[name] = array[:, first:last]
        else:
            out[name] = array if array.ndim == 0 else array[first:last]
    return out


class Reader(quantization.CalibrationDataReader):
    def __init__(self, samples, number):
        self.batches = (some(samples, i, i + 1) for i in range(number))

    def get_next(self):
        return next(self.batches, None)


RECIPE = """name = "{name}"
seed = 1
threads = 1
[data]
train = "{data}"
test = "{data}"
{inputs}
[model]
file = "{model}"
[[stages]]
kind = "quantize"
calibration = {{ observer = "min_max", images = {number}, batch = {batch} }}
[[stages]]
kind = "deploy"
"""


def espalier(binary, original, data, number, batch, run):
    """The deployed file, and what the run says of its stages."""
    deployed = run / "deploy.deployed.onnx"
    if not deployed.exists():
        inputs = "[data.inputs]\nsr = { held = true }" if original.stem.startswith("silero") else ""
        recipe = run.with_suffix(".toml")
        told = {"name": original.stem, "data": data.resolve(), "model": original.resolve(), "inputs": inputs}
        recipe.write_text(RECIPE.format(**told, number=number, batch=batch))
        command = [binary.resolve(), "run", recipe, "--output", run, "--quiet"]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return deployed, json.loads((run / "run.json").read_text())["stages"]


def time_in_turn(paths, feed, rounds, seconds):
    """Milliseconds of a run of each file, the median of each round; processor time, so that other work counts less."""
    sessions = [onnxruntime.InferenceSession(str(path), options(), providers=["CPUExecutionProvider"]) for path in paths]
    medians = [[] for _ in paths]
    for turn in range(rounds + 1):
        for session, own in zip(sessions, medians):
            times, began = [], time.perf_counter()
            while time.perf_counter() - began < seconds or len(times) < 3:
                start = time.thread_time()
                session.run(None, feed)
                times.append((time.thread_time() - start) * 1e3)
            if turn > 0:  # The first warms up.
                own.append(statistics.median(times))
    return medians


def listed(counter):
    return ", ".join(f"{n} {name}" for name, n in sorted(counter.items())) or "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("espalier", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.25)
    args = parser.parse_args()
    work = args.work / "placement"
    work.mkdir(parents=True, exist_ok=True)
    originals = sorted((args.data / "models").glob("*.onnx")) + [work / f"{name}.onnx" for name in placement_networks.NETWORKS]
    rows, reasons = [], []
    for original in originals:
        name = original.stem
        if args.only not in name:
            continue
        data = work / f"{name}.npz"
        if not data.exists():
            if name in placement_networks.NETWORKS:
                samples = {"input": placement_networks.make(name, str(original), args.samples)}
            else:
                samples = {key: array[: args.samples] for key, array in all_samples(args.work / f"{name}.calibration.npz").items()}
            if name.startswith("silero"):
                number = len(next(iter(samples.values())))
                samples |= {"state": np.zeros((2, number, 128), np.float32), "sr": np.array(16000)}
            np.savez(data, **samples)
        samples = all_samples(data)
        number = min(args.samples, len(next(iter(samples.values()))))
        theirs = work / f"{name}.static.onnx"
        ours, stages = espalier(args.espalier, original, data, number, 1 if name.startswith("ultraface") else 16, work / name)
        if not theirs.exists():
            quantize_static(original, theirs, Reader(samples, number))
        made = [optimized(path, work / f"{name}.{kind}.optimized.onnx") for kind, path in (("espalier", ours), ("static", theirs))]
        a, b = (count(model.graph) for model in made)
        floating = work / f"{name}.float.onnx"
        onnx.save(load(original), floating)
        medians = time_in_turn([floating, ours, theirs], some(samples, 0, 1), args.rounds, args.seconds)
        rows.append((name, a, b, medians))
        reasons += [(name, part) for part in stages[0].get("float_parts", [])]
        print(name, json.dumps(stages[-1]["deploy"]["placement"]), a, b, flush=True)

    def layers(counts):
        inside, outside = (sum(counts[kind][name] for name in LAYERS) for kind in ("integer", "float"))
        return f"{inside} of {inside + outside}"

    def ratio(over, under):
        return statistics.median(x / y for x, y in zip(over, under))

    print("\n| network | layers on integers: espalier | quantize_static | other nodes in float: espalier | quantize_static | conversions |")
    print("|---|---|---|---|---|---|")
    for name, a, b, _ in rows:
        others = ({k: n for k, n in counts["float"].items() if k not in LAYERS} for counts in (a, b))
        print(f"| {name} | {layers(a)} | {layers(b)} | {' | '.join(map(listed, others))} | {a['conversions']} / {b['conversions']} |")
    titles = "float, ms | espalier, ms | quantize_static, ms | times faster than float | than quantize_static | by the best rounds"
    print(f"\n| network | {titles} |")
    print("|---|---|---|---|---|---|---|")
    for name, _, _, (f, a, b) in rows:
        shown = " | ".join(f"{statistics.median(m):.3f} ({min(m):.3f})" for m in (f, a, b))
        best = f"{min(f) / min(a):.2f} / {min(b) / min(a):.2f}"
        print(f"| {name} | {shown} | {ratio(f, a):.2f} | {ratio(b, a):.2f} | {best} |")
    print("\n| network | nodes that quantize leaves in float | reason |\n|---|---|---|")
    grouped = collections.Counter((name, part["reason"], part["op_type"]) for name, part in reasons)
    for name, reason in dict.fromkeys(key[:2] for key in grouped):
        of = {op_type: n for (*key, op_type), n in grouped.items() if key == [name, reason]}
        print(f"| {name} | {listed(of)} | {reason} |")


if __name__ == "__main__":
    main()
