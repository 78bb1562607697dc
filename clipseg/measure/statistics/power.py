"""The power of Welch's test of two groups of runs with the same spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from clipseg.measure.significance import CONFIDENCE, NotTestable

POWER = 0.8
MOST_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Power:
    """The differences that are seen in 80% of cases at α = 0.05, two-sided, with two groups of as many seeds.

    Attributes:
        spread: the standard deviation over seeds, pooled, in points.
        seeds: of a group.
        detectable: the difference in points that is seen.
        needed: seeds of a group for one point; None: above 10,000.
    """

    spread: float
    seeds: int
    detectable: float
    needed: int | None

    def __str__(self) -> str:
        needed = f"over {MOST_SEEDS:,}" if self.needed is None else str(self.needed)
        return (
            f"with a standard deviation of {self.spread:.2f} points over seeds, {self.seeds} seeds a group see a difference of "
            f"{self.detectable:.2f} points in 80% of cases; one point needs {needed} seeds a group"
        )


def power_of(groups: Sequence[ArrayLike]) -> Power | NotTestable:
    """Return the power of a comparison of groups like these.

    Args:
        groups: values in percent, one a run; groups of one say nothing of the spread. The seeds of the smallest count.
    """
    samples = [np.asarray(group, dtype=np.float64) for group in groups]
    samples = [sample for sample in samples if len(sample) > 1]
    if not samples:
        return NotTestable("no group has two runs, which a spread needs")
    freedom = sum(len(sample) - 1 for sample in samples)
    spread = math.sqrt(sum(np.square(sample - sample.mean()).sum() for sample in samples) / freedom)
    if spread == 0:
        return NotTestable("runs with other seeds do not differ")
    seeds = min(map(len, samples))
    return Power(spread=spread, seeds=seeds, detectable=spread * detectable(seeds), needed=seeds_needed(1 / spread))


def chance(effect: float, seeds: int) -> float:
    """Return the chance to see a difference of `effect` > 0 standard deviations, of its sign, with groups of `seeds` runs."""
    freedom = 2 * seeds - 2
    critical = stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
    shift = effect * math.sqrt(seeds / 2)
    seen = stats.nct.sf(critical, freedom, shift)
    return 1.0 if np.isnan(seen) else float(seen)  # scipy has no value far out, where nothing is missed


def detectable(seeds: int) -> float:
    """Return the difference, in standard deviations, that is seen in 80% of cases with groups of 2 runs or more."""
    return float(optimize.brentq(lambda effect: chance(effect, seeds) - POWER, 1e-3, 100))


def seeds_needed(effect: float) -> int | None:
    """Return the least seeds a group to see `effect` standard deviations in 80% of cases; None where 10,000 are too few."""
    low, high = 1, MOST_SEEDS
    if chance(effect, high) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(effect, middle) >= POWER else (middle, high)
    return high
