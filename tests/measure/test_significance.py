"""The tests of means: scipy as oracle, known truths by simulation, and never a NaN."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clipseg.errors import ClipSegError
from clipseg.measure.significance import (
    Interval,
    NotTestable,
    RankTest,
    TTest,
    cluster_bootstrap,
    format_p,
    mean_interval,
    paired_t,
    to_json,
    welch,
    wilcoxon,
)
from clipseg.measure.statistics.corrections import holm, holm_outcomes

SAMPLES = st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 0.1, 7.0]), max_size=8)


def samples(seed: int, *, sizes: tuple[int, int] = (30, 50), effect: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 1, sizes[0]), generator.normal(effect, 2.5, sizes[1])


@pytest.mark.parametrize("seed", range(3))
def test_welch_is_scipys(seed: int) -> None:
    one, two = samples(seed)
    ours, oracle = welch(one, two), stats.ttest_ind(one, two, equal_var=False)
    assert isinstance(ours, TTest)
    interval = oracle.confidence_interval(0.95)
    expected = (oracle.statistic, oracle.df, oracle.pvalue, one.mean() - two.mean(), interval.low, interval.high)
    assert astuple(ours)[:6] == pytest.approx(expected, rel=1e-9)
    assert ours.size == 30


def test_hedges_g_by_hand() -> None:
    # Means 2 and 5, both variances 1: Cohen's d is -3; the exact correction for 4 degrees of freedom is Γ(2) / (√2 Γ(1.5)).
    test = welch([1, 2, 3], [4, 5, 6])
    assert isinstance(test, TTest)
    assert test.effect_size == pytest.approx(-3 / (math.sqrt(2) * math.gamma(1.5)))
    assert test.difference == -3


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_scipys(seed: int) -> None:
    one, two = samples(seed, sizes=(40, 40))
    ours, oracle = paired_t(one, two), stats.ttest_rel(one, two)
    assert isinstance(ours, TTest)
    interval = oracle.confidence_interval(0.95)
    expected = (oracle.statistic, oracle.df, oracle.pvalue, (one - two).mean(), interval.low, interval.high)
    assert astuple(ours)[:6] == pytest.approx(expected, rel=1e-9)
    assert ours.effect_size == pytest.approx((one - two).mean() / (one - two).std(ddof=1))
    ranks, rank_oracle = wilcoxon(one, two), stats.wilcoxon(one, two)
    assert isinstance(ranks, RankTest)
    assert (ranks.statistic, ranks.p_value) == pytest.approx((rank_oracle.statistic, rank_oracle.pvalue))


def test_identical_samples_are_equal_and_constant_ones_not_testable() -> None:
    identical = welch([1, 2, 4], [1, 2, 4])
    assert isinstance(identical, TTest)
    assert (identical.statistic, identical.p_value, identical.effect_size) == (0.0, 1.0, 0.0)
    for outcome, reason in (
        (welch([0.1] * 9, [0.1] * 9), "both samples are constant (0.1 and 0.1)"),
        (welch([0] * 9, [5] * 9), "both samples are constant (0 and 5)"),
        (welch([1], [1, 2]), "samples of 1 and 2 values"),
        (welch([], [1, 2]), "samples of 0 and 2 values"),
        (paired_t([1], [2]), "1 pairs"),
        (paired_t([1, 2, 3], [2, 3, 4]), "all 3 differences are -1"),
        (wilcoxon([1, 2], [1, 2]), "no pair differs"),
        (wilcoxon([], []), "no pair differs"),
        (mean_interval([4]), "1 value"),
        (cluster_bootstrap([1, 2], ["a", "a"], seed=0), "1 image"),
        (cluster_bootstrap([], [], seed=0), "0 image"),
    ):
        assert isinstance(outcome, NotTestable)
        assert reason in str(outcome)
        assert to_json(outcome) == {"not_testable": outcome.reason}
    assert isinstance(welch([0, 0, 0], [5, 6, 7]), TTest)  # one constant sample is no obstacle


@given(SAMPLES, SAMPLES)
def test_no_nan_whatever_the_samples(one: list[float], two: list[float]) -> None:
    length = min(len(one), len(two))
    for outcome in (welch(one, two), paired_t(one[:length], two[:length])):
        if isinstance(outcome, TTest):
            assert all(map(math.isfinite, astuple(outcome)))
            assert outcome.low <= outcome.difference <= outcome.high
            assert 0 <= outcome.p_value <= 1
            assert "nan" not in str(outcome)


def test_values_that_are_no_numbers_are_refused() -> None:
    for values in ([1, math.nan], [1, math.inf]):
        with pytest.raises(ClipSegError, match="NaN or infinite"):
            welch(values, [1, 2])


def test_rejects_a_true_h0_as_rarely_as_it_says_and_finds_an_effect() -> None:
    generator = np.random.default_rng(0)
    runs = 500
    p = {
        effect: [welch(generator.normal(0, 1, 20), generator.normal(effect, 3, 20)).p_value for _ in range(runs)]  # type: ignore[union-attr]
        for effect in (0.0, 3.0)
    }
    spread = 3 * math.sqrt(0.05 * 0.95 / runs)
    assert abs(np.mean(np.array(p[0.0]) < 0.05) - 0.05) < spread
    assert np.mean(np.array(p[3.0]) < 0.05) > 0.95


def test_clustered_interval_covers_where_one_by_one_would_not() -> None:
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 5)
    covered = {"clustered": 0, "one by one": 0}
    for seed in range(200):
        values = generator.normal(0, 1, 40)[clusters] + generator.normal(0, 0.2, len(clusters))
        for name, labels in (("clustered", clusters), ("one by one", np.arange(len(clusters)))):
            interval = cluster_bootstrap(values, labels, seed=seed, repeats=400)
            assert isinstance(interval, Interval)
            covered[name] += interval.low <= 0 <= interval.high
    assert covered["clustered"] / 200 == pytest.approx(0.95, abs=0.05)
    assert covered["one by one"] / 200 < 0.8


def test_bootstrap_is_of_the_seed_alone_and_weighs_values_alike() -> None:
    values, clusters = [0.0, 0.0, 0.0, 8.0], ["a", "a", "a", "b"]
    assert cluster_bootstrap(values, clusters, seed=1) == cluster_bootstrap(values, clusters, seed=1)
    # Both drawn once: 2, the mean of the values, not 4, the mean of the clusters' means.
    assert cluster_bootstrap(values, clusters, seed=1, repeats=3000) == Interval(0.0, 8.0, 2)
    many = cluster_bootstrap(np.arange(1000) % 2, np.arange(1000), seed=0, repeats=2500)
    assert isinstance(many, Interval)
    assert (many.low, many.high) == pytest.approx((0.469, 0.531), abs=0.004)


def test_mean_interval_is_scipys() -> None:
    values = [43.1, 44.0, 43.7]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    interval = mean_interval(values)
    assert isinstance(interval, Interval)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_holm_by_hand() -> None:
    # Sorted: .005 × 4, .01 × 3, .03 × 2, .04 × 1, none below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=9))
def test_holm_keeps_the_order_and_rejects_less(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_tests_that_could_not_be_done_are_no_comparisons() -> None:
    tests = [welch([1, 2, 3], [11, 12, 14]), NotTestable("why"), welch([1, 2, 3], [2, 3, 1])]
    first, second = (test.p_value for test in tests if isinstance(test, TTest))
    assert holm_outcomes(tests) == [pytest.approx(2 * first), None, second]


def test_p_values_in_words() -> None:
    assert [format_p(p) for p in (0.077193, 3.3269e-134, 0.0)] == ["p = 0.0772", "p = 3.33e-134", "p < 1e-300"]
