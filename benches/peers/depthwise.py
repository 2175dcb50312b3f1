"""How long ONNX Runtime takes for a depthwise convolution on integers, by its number of channels.

A chain of eight QLinearConv on 3x96 pixels, one thread, all numbers in turn; processor time of a layer.
"""
import statistics
import time

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

LAYERS, HEIGHT, WIDTH, ROUNDS = 8, 3, 96, 9

onnxruntime.set_default_logger_severity(3)


def chain(channels, kernel):
    weight = np.random.default_rng(0).integers(-127, 128, (channels, 1, kernel, kernel)).astype(np.int8)
    stored = {
        "s": np.float32(0.1),
        "z": np.uint8(12),
        "w": weight,
        "ws": np.full(channels, 0.01, np.float32),
        "wz": np.zeros(channels, np.int8),
    }
    nodes = [
        helper.make_node(
            "QLinearConv", [f"x{i}", "s", "z", "w", "ws", "wz", "s", "z"], [f"x{i + 1}"], pads=[kernel // 2] * 4, group=channels
        )
        for i in range(LAYERS)
    ]
    ends = [helper.make_tensor_value_info(f"x{i}", 2, [1, channels, HEIGHT, WIDTH]) for i in (0, LAYERS)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(a, name) for name, a in stored.items()])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main():
    sessions = {(kernel, channels): chain(channels, kernel) for kernel in (3, 5) for channels in (80, 88, 96, 104, 112, 200, 208)}
    times = {key: [] for key in sessions}
    for _ in range(ROUNDS):
        for (kernel, channels), session in sessions.items():
            x = np.random.randint(0, 255, (1, channels, HEIGHT, WIDTH), dtype=np.uint8)
            for _ in range(30):
                start = time.thread_time()
                session.run(None, {"x0": x})
                times[kernel, channels].append((time.thread_time() - start) / LAYERS)
    print("| kernel | channels | µs a layer | ns an output |\n|---|---|---|---|")
    for (kernel, channels), seconds in times.items():
        median = statistics.median(seconds)
        print(f"| {kernel}x{kernel} | {channels} | {median * 1e6:.1f} | {median * 1e9 / (channels * HEIGHT * WIDTH):.2f} |")


if __name__ == "__main__":
    main()
