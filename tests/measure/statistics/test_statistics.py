"""Statistics against closed forms and by simulation: each test's size, each interval's coverage, each power's share."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from clipseg.errors import ClipSegError
from clipseg.measure.significance import (
    Interval,
    NotTestable,
    TTest,
    cluster_bootstrap,
    cluster_means,
    mean_interval,
    paired_t,
    share_interval,
    welch,
    wilcoxon,
)
from clipseg.measure.statistics.clustered import clustered_t, seeds_and_images
from clipseg.measure.statistics.corrections import benjamini_hochberg, rate_outcomes
from clipseg.measure.statistics.equivalence import Equivalence, check_margin, equivalence
from clipseg.measure.statistics.power import Power, chance, detectable, power_of, seeds_needed

RUNS = 1000
MONTE_CARLO = 3 * math.sqrt(0.05 * 0.95 / RUNS)  # three standard errors of a share of 5%
CLUSTERS = np.repeat(np.arange(40), np.tile([1, 3, 5, 7], 10))  # of unequal size


def clustered(generator: np.random.Generator, mean: float = 0.0) -> np.ndarray:
    return mean + generator.normal(0, 1, 40)[CLUSTERS] + generator.normal(0, 0.7, len(CLUSTERS))


def equivalent_at_margin(generator: np.random.Generator) -> Any:
    """The difference is the margin itself, the nearest that H0 comes to equality."""
    return equivalence(welch(generator.normal(1, 0.3, 12), generator.normal(0, 0.3, 12)), 1.0)


TESTS: dict[str, Callable[[np.random.Generator], Any]] = {
    "welch": lambda generator: welch(generator.normal(0, 1, 12), generator.normal(0, 2, 18)),
    "pairs": lambda generator: paired_t(generator.normal(0, 1, 10), generator.normal(0, 1, 10)),
    "ranks": lambda generator: wilcoxon(generator.normal(0, 1, 25), generator.normal(0, 1, 25)),
    "clustered": lambda generator: clustered_t(clustered(generator), CLUSTERS),
    "equivalence": equivalent_at_margin,
}


@pytest.mark.parametrize("name", TESTS)
def test_a_true_h0_is_rejected_in_five_of_a_hundred(name: str) -> None:
    generator = np.random.default_rng(0)
    rejected = np.mean([TESTS[name](generator).p_value < 0.05 for _ in range(RUNS)])
    assert abs(rejected - 0.05) < MONTE_CARLO


def two_way(generator: np.random.Generator, seeds: int = 3) -> Interval | NotTestable:
    """Runs of a group differ by their seed, images by what they show, and images do not take both groups alike."""
    hard, liking = generator.normal(0, 8, 40), generator.normal(0, 3, 40)
    groups = [
        generator.normal(0, 0.6, (seeds, 1))
        + (hard + group * liking)[CLUSTERS]
        + generator.normal(0, 1, (seeds, len(CLUSTERS)))
        for group in (0, 1)
    ]
    return seeds_and_images(groups[0], groups[1], CLUSTERS, seed=int(generator.integers(2**31)), repeats=400)


def over_seeds(generator: np.random.Generator) -> Interval:
    test = welch(generator.normal(0, 1, 5), generator.normal(0, 2, 5))
    assert isinstance(test, TTest)
    return Interval(test.low, test.high)


def of_images(generator: np.random.Generator) -> Interval | NotTestable:
    values = generator.normal(0, 1, 100).repeat(3) + generator.normal(0, 0.5, 300)
    return cluster_bootstrap(values, np.arange(100).repeat(3), seed=0, repeats=500)


INTERVALS: dict[str, tuple[Callable[[np.random.Generator], Any], float]] = {
    "bootstrap of 100 images": (of_images, 0.0),
    "mean of seeds": (lambda generator: mean_interval(generator.normal(0, 1, 4)), 0.0),
    "share of images": (lambda generator: share_interval(int(generator.binomial(200, 0.7)), 200), 0.7),
    "difference of seeds": (over_seeds, 0.0),
    "seeds and images": (two_way, 0.0),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_holds_the_truth_in_95_of_a_hundred(name: str) -> None:
    interval, truth = INTERVALS[name]
    generator = np.random.default_rng(3)
    found = [interval(generator) for _ in range(RUNS)]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert 0.93 <= covered <= 0.97, covered


def test_a_value_a_cluster_is_the_one_sample_t_test() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 30)
    ours, oracle = clustered_t(values, np.arange(30)), stats.ttest_1samp(values, 0)
    assert isinstance(ours, TTest)
    assert (ours.statistic, ours.p_value) == pytest.approx((oracle.statistic, oracle.pvalue))
    ends = oracle.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((ends.low, ends.high))
    doubled = clustered_t(values.repeat(2), np.arange(30).repeat(2))  # the same again is no more evidence
    assert isinstance(doubled, TTest)
    assert doubled.p_value == pytest.approx(ours.p_value)


def test_few_images_are_said_beside_the_interval() -> None:
    values = np.arange(60.0)
    many, few = (cluster_bootstrap(values, np.arange(60) % count, seed=0, repeats=100) for count in (20, 19))
    assert str(many).endswith("of 20 images")
    assert "of 19 images, fewer than 20: it is too narrow" in str(few)
    assert str(clustered_t([1.0, 2.0], ["a", "a"])) == "not testable: 1 image; at least 2 are needed"
    assert "all 2 images give 3" in str(clustered_t([3.0, 3.0], ["a", "b"]))


def test_seeds_without_spread_leave_the_images_and_the_other_way_round() -> None:
    generator = np.random.default_rng(1)
    images = generator.normal(0, 1, 30)
    runs = np.zeros((3, 30)), np.tile(images, (3, 1))
    over_images, t_test = seeds_and_images(*runs, np.arange(30), seed=0), paired_t(images, np.zeros(30))
    assert isinstance(over_images, Interval)
    assert isinstance(t_test, TTest)
    assert (over_images.low, over_images.high) == pytest.approx((t_test.low, t_test.high), rel=0.05)
    seeds = generator.normal(0, 1, (2, 5))
    of_seeds, by_welch = (
        seeds_and_images(*seeds[:, :, None].repeat(30, axis=2), np.arange(30), seed=0),
        welch(seeds[1], seeds[0]),
    )
    assert isinstance(of_seeds, Interval)
    assert isinstance(by_welch, TTest)
    assert (of_seeds.low, of_seeds.high) == pytest.approx((by_welch.low, by_welch.high), rel=0.05)
    assert isinstance(seeds_and_images(runs[0][:1], runs[1], np.arange(30), seed=0), NotTestable)
    assert isinstance(seeds_and_images(runs[0], runs[0], np.arange(30), seed=0), NotTestable)


def test_equivalence_is_two_one_sided_tests() -> None:
    generator = np.random.default_rng(0)
    one, two = generator.normal(0.1, 1, 30), generator.normal(0, 1, 30)
    test = welch(one, two)
    assert isinstance(test, TTest)
    found = equivalence(test, 0.8, np.array([-1, -0.5, 0.2, 0.79]))
    above = stats.ttest_ind(one + 0.8, two, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(one - 0.8, two, equal_var=False, alternative="less").pvalue
    assert isinstance(found, Equivalence)
    assert found.p_value == pytest.approx(max(above, below))
    ends = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert (found.p_value < 0.05) == (found.low > -0.8 and found.high < 0.8)
    assert found.share == 0.75
    assert "equivalent" in found.verdict
    assert equivalence(NotTestable("why"), 1) == NotTestable("why")
    for margin in (0, -1, math.inf, math.nan):
        with pytest.raises(ClipSegError, match="expected points above 0"):
            check_margin(margin)


def test_draws_of_the_bootstrap_are_of_the_difference() -> None:
    draws = cluster_means(np.arange(100.0), np.arange(100), seed=0)
    assert len(draws) == 10_000
    assert draws.mean() == pytest.approx(49.5, abs=0.1)
    assert draws.std() == pytest.approx(np.arange(100).std() / 10, rel=0.03)


def test_power_is_the_share_that_is_seen() -> None:
    # The textbook's numbers of subjects for effects of 1, 0.8 and 0.5 (Cohen 1988).
    assert [seeds_needed(effect) for effect in (1.0, 0.8, 0.5)] == [17, 26, 64]
    assert (seeds_needed(1e-3), seeds_needed(60)) == (None, 2)
    generator = np.random.default_rng(5)
    effect = detectable(4)
    assert chance(effect, 4) == pytest.approx(0.8)
    seen = [stats.ttest_ind(generator.normal(effect, 1, 4), generator.normal(0, 1, 4)).pvalue < 0.05 for _ in range(RUNS)]
    assert np.mean(seen) == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / RUNS))
    found = power_of([[10.0, 12.0, 14.0], [1.0, 1.0, 1.0], [5.0]])
    assert isinstance(found, Power)
    assert (found.spread, found.seeds) == (pytest.approx(math.sqrt(2)), 3)
    assert found.detectable == pytest.approx(math.sqrt(2) * detectable(3))
    assert found.needed == seeds_needed(1 / math.sqrt(2))
    assert "3 seeds a group see a difference of 4.34 points" in str(found)
    assert [str(power_of(groups)) for groups in ([[1.0], [2.0]], [[1.0, 1.0]])] == [
        "not testable: no group has two runs, which a spread needs",
        "not testable: runs with other seeds do not differ",
    ]


def test_false_discoveries_are_as_rare_as_said() -> None:
    # Sorted: .01 × 4, .02 × 2, .03 × 4 / 3, .5 × 1, none above the one after it.
    assert benjamini_hochberg([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.04, 0.5, 0.04, 0.04])
    assert benjamini_hochberg([]) == []
    generator = np.random.default_rng(2)
    rates = []
    for _ in range(400):
        p = stats.norm.sf(np.concatenate([generator.normal(0, 1, 30), generator.normal(3, 1, 10)]))
        found = np.array(benjamini_hochberg(p)) < 0.05
        rates.append(found[:30].sum() / max(found.sum(), 1))
    assert np.mean(rates) <= 0.05
    assert rate_outcomes([NotTestable("why"), welch([1, 2, 3], [11, 12, 14])])[0] is None
