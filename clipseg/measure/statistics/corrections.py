"""Many tests reject some true H0 by chance alone: corrected p-values, over those tests of a family that could be done."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from clipseg.measure.significance import NotTestable, RankTest, TTest

MANY_TESTS = 10  # with more, Benjamini and Hochberg's correction stands beside Holm's


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: below α with a chance of at most α for any true H0 of the family."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted.tolist()


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values: of those below α, a share of at most α is expected to be of a true H0."""
    return stats.false_discovery_control(p_values).tolist() if len(p_values) else []


def holm_outcomes(outcomes: Sequence[TTest | RankTest | NotTestable]) -> list[float | None]:
    """`holm` over the tests that could be done; None for the others, which do not count as comparisons."""
    return _adjusted(outcomes, holm)


def rate_outcomes(outcomes: Sequence[TTest | RankTest | NotTestable]) -> list[float | None]:
    """`benjamini_hochberg`, likewise."""
    return _adjusted(outcomes, benjamini_hochberg)


def _adjusted(
    outcomes: Sequence[TTest | RankTest | NotTestable], correct: Callable[[Sequence[float]], list[float]]
) -> list[float | None]:
    adjusted = iter(correct([outcome.p_value for outcome in outcomes if not isinstance(outcome, NotTestable)]))
    return [None if isinstance(outcome, NotTestable) else next(adjusted) for outcome in outcomes]
