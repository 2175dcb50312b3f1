"""Networks whose weights have their channels on every axis there is, and what a quantization-aware step costs on them.

`weight_axes.py FOLDER` writes them. `weight_axes.py FOLDER --measure ESPALIER` also takes the processor time of a step on one
thread, float and quantized in turn, and prints the best of several as a ratio: unlike wall time it can be read on a machine that
has other things to do.
"""
import argparse
import os
import pathlib
import resource
import subprocess

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, LAYERS, CHANNELS, SIDE = 512, 4, 64, 24
# File, samples a step, and steps that are timed.
NETWORKS = [("gemm-transposed", 128, 60), ("gemm", 128, 60), ("matmul", 128, 60), ("depthwise", 8, 40)]
WARM_UP = 5


def save(path, nodes, shape, last, weights):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, path.stem, ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def dense(path):
    """Channels last (Gemm as it is, MatMul) or first (Gemm with transB)."""
    random, nodes, weights, x = np.random.default_rng(0), [], {}, "x"
    for i in range(LAYERS):
        weights[f"w{i}"] = random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
        inputs, attributes = [x, f"w{i}"], {}
        if path.stem != "matmul":
            weights[f"b{i}"] = np.zeros(WIDTH)
            inputs, attributes = [*inputs, f"b{i}"], {"transB": int(path.stem == "gemm-transposed")}
        nodes.append(helper.make_node("MatMul" if path.stem == "matmul" else "Gemm", inputs, [f"m{i}"], **attributes))
        x = f"m{i}"
        if i < LAYERS - 1:
            nodes.append(helper.make_node("Relu", [x], [f"r{i}"]))
            x = f"r{i}"
    save(path, nodes, ["N", WIDTH], x, weights)


def depthwise(path):
    """Nine weights a channel, and activations that are large beside them."""
    random, nodes, weights, x = np.random.default_rng(0), [], {}, "x"
    for i in range(LAYERS):
        depthwise_part = ("d", (CHANNELS, 1, 3, 3), {"group": CHANNELS, "pads": [1] * 4})
        for name, shape, attributes in (depthwise_part, ("p", (CHANNELS, CHANNELS, 1, 1), {})):
            weights[f"{name}{i}.w"] = random.normal(size=shape) / np.prod(shape[1:]) ** 0.5
            weights[f"{name}{i}.b"] = np.zeros(CHANNELS)
            nodes.append(helper.make_node("Conv", [x, f"{name}{i}.w", f"{name}{i}.b"], [f"{name}{i}"], **attributes))
            nodes.append(helper.make_node("Relu", [f"{name}{i}"], [f"{name}{i}.r"]))
            x = f"{name}{i}.r"
    save(path, nodes, ["N", CHANNELS, SIDE, SIDE], x, weights)


def processor_seconds(command):
    def spent():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, RAYON_NUM_THREADS="1"))
    return spent() - before


def step_ms(espalier, path, batch, steps, flags):
    """What `steps` more steps cost, so that loading and calibrating do not count."""
    command = [espalier, "--quiet", "bench", "train", str(path), "--batch", str(batch), *flags, "--steps"]
    few, many = (processor_seconds([*command, str(n)]) for n in (WARM_UP, WARM_UP + steps))
    return (many - few) / steps * 1e3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--measure", metavar="ESPALIER")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, batch, steps in NETWORKS:
        path = args.folder / f"{name}.onnx"
        (depthwise if name == "depthwise" else dense)(path)
        if args.measure:
            rounds = [[step_ms(args.measure, path, batch, steps, flags) for flags in ([], ["--qat"])] for _ in range(args.rounds)]
            plain, aware = (min(times) for times in zip(*rounds))
            print(f"{name}: float {plain:.2f} ms, quantization-aware {aware:.2f} ms, {aware / plain:.2f}x", flush=True)


if __name__ == "__main__":
    main()
