"""How fast two ways to the same result are, side by side in one process: alternating rounds, ratios, memory, and a bound.

A machine's speed drifts, so a ratio is taken within each round, and the median of rounds is what counts. The bound is what the
arithmetic alone takes at the speed of the fastest matrix product of its dtype found on the machine, in the same rounds.
"""

import ctypes
import functools
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Measurement, Timer
from torch.utils.flop_counter import FlopCounterMode

from clipseg.network.cpu_kernels import frozen_linear
from clipseg.run.provenance import processor_name

SHAPES = ((2048, 2048, 2048), (1940, 768, 3072))  # of products x [N, C], weight [D, C]: square, and of ViT-B/16, four images
SHORTEST = 0.25  # seconds: what takes less is called again and again


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two ways to one result.

    Attributes:
        name: of the table's row.
        ours, theirs: run once each a round.
        reference: what `theirs` is.
        difference: runs both once; the largest absolute difference of what they compute.
        tolerance: of `difference`.
        dtype: in which ours does most of its arithmetic.
        with_flops: count the arithmetic of `ours`, where it is matrix products that bound it.
    """

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    reference: str
    difference: Callable[[], float]
    tolerance: float = 1e-4
    dtype: torch.dtype = torch.float32
    with_flops: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A case's figures: medians over rounds; seconds, MiB, GFLOP and GFLOP/s. None: could not be or was not measured.

    `ratio` is theirs over ours, with its smallest and largest value over the rounds. `bound_ratio` is the ratio if ours took
    what its arithmetic takes at `peak`, and nothing else. Memory is what a call takes at its highest beyond what lay there.
    """

    name: str
    reference: str
    ours: float
    theirs: float
    ratio: float
    ratio_range: tuple[float, float]
    difference: float
    gflop: float | None
    peak: float
    bound: float | None
    bound_ratio: float | None
    ours_mib: float | None
    theirs_mib: float | None


def compare(case: Case, *, rounds: int, device: torch.device) -> Outcome:
    """Check that both compute the same, then time them in alternating rounds.

    Raises:
        AssertionError: they do not compute the same.
    """
    difference = case.difference()
    assert difference <= case.tolerance, f"{case.name}: results differ by {difference}"
    gflop = count_gflop(case.ours) if case.with_flops else None
    ours_mib, theirs_mib = peak_mib(case.ours, device), peak_mib(case.theirs, device)
    ours: list[float] = []
    theirs: list[float] = []
    peaks: list[float] = []
    for number in range(rounds):
        peaks.append(peak_gflops(device, case.dtype))
        for is_ours in (True, False) if number % 2 == 0 else (False, True):
            seconds = time_calls(case.ours if is_ours else case.theirs).mean
            (ours if is_ours else theirs).append(seconds)
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    peak = statistics.median(peaks)
    bound = None if gflop is None else gflop / peak
    return Outcome(
        name=case.name,
        reference=case.reference,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        ratio=statistics.median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        difference=difference,
        gflop=gflop,
        peak=peak,
        bound=bound,
        bound_ratio=None if bound is None else statistics.median(theirs) / bound,
        ours_mib=ours_mib,
        theirs_mib=theirs_mib,
    )


def time_calls(call: Callable[[], Any]) -> Measurement:
    """Time calls, the device's work included, for a quarter of a second and at least once, after a first one that warms up."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=SHORTEST)


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that one call takes, the device's work included."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began


def peak_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the speed of the best of some products, torch's own or with a packed weight: GFLOP/s of this machine, now."""
    found = []
    for n, c, d in SHAPES:
        x, weight = torch.ones(n, c, device=device, dtype=dtype), torch.ones(d, c, device=device)
        cast = weight.to(dtype)
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            ways = (functools.partial(F.linear, x, cast), functools.partial(frozen_linear, x, weight, None))
            found += [2 * n * c * d / min(time_calls(way).times) / 1e9 for way in ways]
    return max(found)


def count_gflop(call: Callable[[], Any]) -> float:
    """The matrix products of one call in GFLOP, two operations a multiplication and addition."""
    # The counter knows neither the CPU's fused attention, which unfused is two products, nor products with packed weights.
    packed = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    formulas = {} if packed is None else {packed: _packed_linear_flops}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        call()
    return counter.get_total_flops() / 1e9


def _packed_linear_flops(x: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Of tensors of these shapes."""
    return 2 * math.prod(out_shape) * x[-1]


def peak_mib(call: Callable[[], Any], device: torch.device) -> float | None:
    """The most memory that one call has at a time beyond what lay there before; None where the system does not tell."""
    call()
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed counts as free
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts anew
        resident = _resident("VmRSS")
        call()
        return _resident("VmHWM") - resident
    return None


def _resident(field: str) -> float:
    """A line of the process's status, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def machine(device: torch.device) -> str:
    """Return processor, threads and device, in words."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{processor_name()}, {torch.get_num_threads()} threads, {where}"


def markdown(outcomes: Iterable[Outcome]) -> str:
    """The outcomes as a Markdown table."""
    header = ("what", "ours", "reference", "ratio", "bound", "GFLOP", "peak GFLOP/s", "memory ours", "memory reference")
    rows = [header, ("---",) * len(header), *map(_cells, outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(outcome: Outcome) -> Sequence[str]:
    low, high = outcome.ratio_range
    bound = "–" if outcome.bound is None else f"{_seconds(outcome.bound)}, {outcome.bound_ratio:.1f}×"
    return (
        outcome.name,
        _seconds(outcome.ours),
        f"{_seconds(outcome.theirs)} ({outcome.reference})",
        f"**{outcome.ratio:.2f}×** ({low:.2f}–{high:.2f})",
        bound,
        "–" if outcome.gflop is None else f"{outcome.gflop:.0f}",
        f"{outcome.peak:.0f}",
        _mib(outcome.ours_mib),
        _mib(outcome.theirs_mib),
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


def _mib(mib: float | None) -> str:
    return "–" if mib is None else f"{mib:.0f} MiB"
