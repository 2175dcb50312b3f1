"""What every peer needs: threads, the timed loop, memory, one line of JSON."""
import json
import os
import resource
import statistics
import time

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


def peak_memory_bytes():
    """Largest resident memory of this process; that of DataLoader workers does not count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed_steps(step, steps, warm_up):
    """Milliseconds of each of `steps` calls, after `warm_up` that do not count."""
    for _ in range(warm_up):
        step()
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        times.append((time.perf_counter() - began) * 1e3)
    return times


def emit(**figures):
    print(json.dumps({**figures, "threads": THREADS, "peak_memory_bytes": peak_memory_bytes()}), flush=True)


def emit_steps(times, batch, **figures):
    median = statistics.median(times)
    emit(step_ms_best=min(times), step_ms_median=median, images_per_s=batch * 1e3 / median, **figures)
