"""Is a difference one? Tests of means with effect sizes and intervals, and a clustered bootstrap.

Numbers in, numbers out: nothing here knows of masks, images or runs. A test that cannot be done says why; no NaN leaves.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from clipseg.errors import ClipSegError

CONFIDENCE = 0.95  # of every interval
FEW_CLUSTERS = 20  # with fewer a percentile bootstrap's interval is too narrow
_DRAWS_AT_ONCE = 1_000_000  # keeps the bootstrap's memory small, whatever the number of clusters


@dataclass(frozen=True, kw_only=True)
class TTest:
    """A two-sided t-test of H0 "no difference between the means"; `str` gives it in one line.

    Attributes:
        statistic: t, of the sign of `difference`.
        degrees_of_freedom: Welch's need not be whole.
        p_value: 0 where it is below the smallest number there is.
        difference: mean of the first sample minus mean of the second.
        low, high: the ends of the 95% interval of `difference`.
        effect_size: Hedges' g of two samples, d_z of pairs.
        size: values in the smaller sample, or pairs.
    """

    statistic: float
    degrees_of_freedom: float
    p_value: float
    difference: float
    low: float
    high: float
    effect_size: float
    size: int

    def __str__(self) -> str:
        return (
            f"t = {self.statistic:.3f}, df = {self.degrees_of_freedom:.1f}, {format_p(self.p_value)}, "
            f"mean difference {self.difference:.3f} [{self.low:.3f}, {self.high:.3f}], effect size {self.effect_size:.3f}"
        )


@dataclass(frozen=True)
class NotTestable:
    """Instead of a test's result: why there is none."""

    reason: str

    def __str__(self) -> str:
        return f"not testable: {self.reason}"


Outcome = TTest | NotTestable


@dataclass(frozen=True)
class RankTest:
    """Wilcoxon's signed-rank test of H0 "differences are symmetric around 0"; `pairs` are those that differ."""

    statistic: float
    p_value: float
    pairs: int

    def __str__(self) -> str:
        return f"W = {self.statistic:.1f}, {format_p(self.p_value)}, {self.pairs} pairs that differ"


@dataclass(frozen=True)
class Interval:
    """Where a mean lies, with 95% confidence; `clusters`: the images it was drawn from, None where it comes of no bootstrap."""

    low: float
    high: float
    clusters: int | None = None

    def __str__(self) -> str:
        if self.clusters is None:
            return f"[{self.low:.3f}, {self.high:.3f}]"
        few = f", fewer than {FEW_CLUSTERS}: it is too narrow" if self.clusters < FEW_CLUSTERS else ""
        return f"[{self.low:.3f}, {self.high:.3f}] of {self.clusters} images{few}"


@dataclass(frozen=True)
class Rejections:
    """How many of a family of tests reject H0: by their own p-values, and after Holm's correction."""

    tested: int
    not_testable: int
    rejected_uncorrected: int
    rejected: int

    def __str__(self) -> str:
        return (
            f"{self.rejected} of {self.tested} rejected after Holm's correction, {self.rejected_uncorrected} before it; "
            f"{self.not_testable} not testable"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence numpy and scipy where a spread is 0 or overflows: `_outcome` sees it in the figures."""
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        yield


@_quiet()
def welch(one: ArrayLike, two: ArrayLike) -> Outcome:
    """Welch's test of two independent samples, whose variances may differ; the effect size is Hedges' g.

    Args:
        one, two: numbers `[N]` and `[M]`, at least two each, and not both constant.

    Raises:
        ClipSegError: a value is NaN or infinite.
    """
    first, second = _sample(one), _sample(two)
    if min(len(first), len(second)) < 2:
        return NotTestable(f"samples of {len(first)} and {len(second)} values; at least 2 each are needed")
    if _is_constant(first) and _is_constant(second):
        return NotTestable(f"both samples are constant ({first[0]:g} and {second[0]:g})")
    pooled = len(first) + len(second) - 2
    deviation = math.sqrt(((len(first) - 1) * first.var(ddof=1) + (len(second) - 1) * second.var(ddof=1)) / pooled)
    # The exact factor that frees Cohen's d of its bias in small samples (Hedges 1981).
    unbias = math.exp(math.lgamma(pooled / 2) - math.lgamma((pooled - 1) / 2)) / math.sqrt(pooled / 2)
    difference = first.mean() - second.mean()
    effect = unbias * np.divide(difference, deviation)
    return _outcome(stats.ttest_ind(first, second, equal_var=False), difference, effect, min(len(first), len(second)))


@_quiet()
def paired_t(one: ArrayLike, two: ArrayLike) -> Outcome:
    """The t-test of pairs `[N]` and `[N]`; the effect size is d_z, mean over standard deviation of the differences.

    Raises:
        ClipSegError: a value is NaN or infinite.
    """
    differences = _differences(one, two)
    if len(differences) < 2:
        return NotTestable(f"{len(differences)} pairs; at least 2 are needed")
    if _is_constant(differences):
        return NotTestable(f"all {len(differences)} differences are {differences[0]:g}")
    test = stats.ttest_1samp(differences, 0)
    return _outcome(test, differences.mean(), test.statistic / math.sqrt(len(differences)), len(differences))


@_quiet()
def wilcoxon(one: ArrayLike, two: ArrayLike) -> RankTest | NotTestable:
    """Wilcoxon's signed-rank test of pairs `[N]` and `[N]`; pairs without a difference are left out.

    Raises:
        ClipSegError: a value is NaN or infinite.
    """
    differences = _differences(one, two)
    differing = differences[differences != 0]
    if not len(differing):
        return NotTestable("no pair differs")
    test = stats.wilcoxon(differing)
    return RankTest(statistic=float(test.statistic), p_value=float(test.pvalue), pairs=len(differing))


def _differences(one: ArrayLike, two: ArrayLike) -> NDArray[np.float64]:
    first, second = _sample(one), _sample(two)
    assert len(first) == len(second), (len(first), len(second))
    return first - second


def _sample(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    assert sample.ndim == 1, sample.shape
    if not np.isfinite(sample).all():
        raise ClipSegError("a sample with NaN or infinite values cannot be tested; measure again")
    return sample


def _is_constant(sample: NDArray[np.float64]) -> bool:
    return bool(sample.min() == sample.max())


def _outcome(test: Any, difference: float, effect: float, size: int) -> Outcome:
    interval = test.confidence_interval(CONFIDENCE)
    found = TTest(
        statistic=float(test.statistic),
        degrees_of_freedom=float(test.df),
        p_value=float(test.pvalue),
        difference=float(difference),
        low=float(interval.low),
        high=float(interval.high),
        effect_size=float(effect),
        size=size,
    )
    return found if np.isfinite(astuple(found)).all() else NotTestable("the spread of the values is lost in rounding")


@_quiet()
def mean_interval(values: ArrayLike) -> Interval | NotTestable:
    """The t interval of the mean of independent values `[N]`, such as one figure over seeds."""
    sample = _sample(values)
    if len(sample) < 2:
        return NotTestable(f"{len(sample)} value; at least 2 are needed")
    ends = stats.ttest_1samp(sample, 0).confidence_interval(CONFIDENCE)
    return Interval(float(ends.low), float(ends.high))


def share_interval(hits: int, trials: int) -> Interval:
    """Wilson's interval of a share, such as the accuracy of a classifier on independent images; `trials` is at least 1."""
    ends = stats.binomtest(hits, trials).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(ends.low), float(ends.high))


def cluster_bootstrap(
    values: ArrayLike, clusters: Sequence[Any] | NDArray[Any], *, seed: int, repeats: int = 10_000
) -> Interval | NotTestable:
    """The percentile interval of a mean whose values come in clusters; arguments as in `cluster_means`.

    With fewer than some twenty clusters the interval is too narrow, as every percentile bootstrap's.
    """
    count = len(np.unique(np.asarray(clusters)))
    if count < 2:
        return NotTestable(f"{count} image; at least 2 are needed")
    means = cluster_means(values, clusters, seed=seed, repeats=repeats)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high), count)


def cluster_means(
    values: ArrayLike, clusters: Sequence[Any] | NDArray[Any], *, seed: int, repeats: int = 10_000
) -> NDArray[np.float64]:
    """Means of values whose clusters are drawn, with replacement, as wholes: float64 `[repeats]`.

    Phrases of one image succeed and fail together: drawn one by one they would pretend to be more evidence than they are.

    Args:
        values: numbers `[N]`, at least one.
        clusters: one label a value.
        seed: of the draws.
        repeats: means drawn.
    """
    sample = _sample(values)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(index, weights=sample), np.bincount(index)
    count = len(sums)
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // count)
    means = []
    for start in range(0, repeats, at_once):
        drawn = generator.integers(count, size=(min(at_once, repeats - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)


def format_p(p_value: float) -> str:
    """`p = 0.0772`, `p = 3.3e-134`, or `p < 1e-300`."""
    return f"p = {p_value:.3g}" if p_value >= 1e-300 else "p < 1e-300"


def to_json(outcome: Any) -> dict[str, Any]:
    """The fields of a test, an interval or another such record by name; `{"not_testable": reason}` where there is no result."""
    return {"not_testable": outcome.reason} if isinstance(outcome, NotTestable) else asdict(outcome)
