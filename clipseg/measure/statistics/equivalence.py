"""Is it the same? A test that does not reject a difference shows none of it; these ask for a difference below a margin."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clipseg.errors import ClipSegError
from clipseg.measure.significance import CONFIDENCE, NotTestable, Outcome, format_p

ALPHA = 1 - CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Two one-sided t-tests of H0 "the difference is at least the margin, either way" (Schuirmann 1987).

    Attributes:
        margin: in the unit of the difference.
        p_value: the larger of both tests'; below 0.05 the two are equivalent at this margin.
        low, high: the 90% interval of the difference, which then lies within the margin.
        share: the part of bootstrap draws whose difference lies within the margin; None where nothing was drawn.
    """

    margin: float
    p_value: float
    low: float
    high: float
    share: float | None

    @property
    def verdict(self) -> str:
        """Whether the two are equivalent, for people."""
        return "equivalent" if self.p_value < ALPHA else "not shown to be equivalent"

    def __str__(self) -> str:
        return f"{self.verdict}: {format_p(self.p_value)}, 90% interval [{self.low:.3f}, {self.high:.3f}]"


def check_margin(margin: float) -> None:
    """Raise `ClipSegError` for a margin that no difference could lie within."""
    if not 0 < margin < math.inf:
        raise ClipSegError(f"--margin {margin:g}; expected points above 0, such as 0.5")


def equivalence(test: Outcome, margin: float, draws: NDArray[np.float64] | None = None) -> Equivalence | NotTestable:
    """Return the two one-sided tests that belong to a t-test.

    Args:
        test: of the difference, whose standard error and degrees of freedom are taken.
        margin: above 0, in the unit of the difference.
        draws: differences `[R]` of a bootstrap.
    """
    if isinstance(test, NotTestable):
        return test
    freedom = test.degrees_of_freedom
    error = (test.high - test.low) / 2 / stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
    above = stats.t.sf((test.difference + margin) / error, freedom)
    below = stats.t.cdf((test.difference - margin) / error, freedom)
    reach = stats.t.ppf(1 - ALPHA, freedom) * error
    return Equivalence(
        margin=margin,
        p_value=float(max(above, below)),
        low=float(test.difference - reach),
        high=float(test.difference + reach),
        share=None if draws is None else float((np.abs(draws) < margin).mean()),
    )
