"""Latency of two files in ONNX Runtime, run in turn, the best of several: `python benches/peers/latency_of_two.py BEFORE AFTER`.

For models with one input whose first axis is the batch; with 1 and 2 threads, batches of 1 and 64.
"""

import sys
import time

import numpy
import onnxruntime


def best_of(sessions, batch):
    """The shortest time in milliseconds that each session takes for a batch of random numbers."""
    runs, repeats = (5, 60) if batch == 1 else (1, 12)
    best = [float("inf")] * len(sessions)
    for _ in range(repeats):
        for i, session in enumerate(sessions):
            given = session.get_inputs()[0]
            data = numpy.random.randn(batch, *given.shape[1:]).astype("float32")
            start = time.perf_counter()
            for _ in range(runs):
                session.run(None, {given.name: data})
            best[i] = min(best[i], (time.perf_counter() - start) / runs * 1e3)
    return best


for threads in (1, 2):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in sys.argv[1:3]]
    for batch in (1, 64):
        before, after = best_of(sessions, batch)
        print(f"{threads} threads, batch {batch}: {before:.2f} ms, {after:.2f} ms, {before / after:.2f} times faster")
