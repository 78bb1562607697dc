"""Where the time of training goes (`debug=profile`): steps under torch's profiler, as a trace and as shares of named parts.

The parts are ranges that the code names where it does the work: `record_function("backbone")` and the like; reading and the
optimiser are named by torch.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from clipseg.files import atomic_write, write_json

WARM_UP, PROFILED = 5, 20

# What is told -> how the names of its ranges begin.
PARTS = {
    "data": "enumerate(DataLoader)",
    "preparation": "preparation",
    "backbone": "backbone",
    "prompt images": "prompt images",
    "text": "text",
    "decoder": "decoder",
    "backward": "backward",
    "optimiser": "Optimizer.step",
}


def profiled(steps: Sequence[int], folder: Path | None) -> Iterator[int]:
    """The first 25 of `steps`, of which the last 20 are profiled; the rest is not made.

    Writes `folder/trace.json`, for chrome://tracing or ui.perfetto.dev, and `folder/shares.json`, and prints the shares; with
    None, as on all processes but the first, nothing.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    warm_up = min(WARM_UP, len(steps) - 1)
    yield from steps[:warm_up]
    with profile(activities=activities) as profiler:
        for step in steps[warm_up : warm_up + PROFILED]:
            with record_function("step"):
                yield step
    if folder is None:
        return
    _write_trace(profiler, folder / "trace.json")
    shares = time_shares(profiler.key_averages())
    write_json(folder / "shares.json", shares)
    print("\n".join(f"{part:<14}{share:6.1%}" for part, share in shares.items()))
    print(f"trace: {folder / 'trace.json'}")


def _write_trace(profiler: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        trace = os.path.join(scratch, "trace.json")
        profiler.export_chrome_trace(trace)
        with atomic_write(path) as file:
            file.write(Path(trace).read_bytes())


def time_shares(events: Sequence[Any]) -> dict[str, float]:
    """Part -> its share of the steps' time, what no part names as "rest"; on a GPU by the time that its kernels take.

    Args:
        events: of torch's profiler, averaged by name.
    """
    total = sum(event.cpu_time_total for event in events if event.key == "step")
    spent = {
        part: sum(max(event.cpu_time_total, event.device_time_total) for event in events if event.key.startswith(start))
        for part, start in PARTS.items()
    }
    shares = {part: time / total for part, time in spent.items()}
    return shares | {"rest": max(0.0, 1 - sum(shares.values()))}
