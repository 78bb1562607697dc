"""The intensity tests of a data set as columns: what goes in comes out, shards join, and rejections are counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import made_results

from clipseg.errors import ClipSegError
from clipseg.measure.intensity import IntensityTests
from clipseg.measure.intensity_columns import FAMILIES, FIGURES, IntensityColumns
from clipseg.measure.results import Results
from clipseg.measure.significance import NotTestable, Outcome, TTest


def outcome(p: float) -> TTest:
    return TTest(
        statistic=-3.5, degrees_of_freedom=41.5, p_value=p, difference=-4.0, low=-6.0, high=-2.0, effect_size=-0.8, size=30
    )


def made_tests(samples: int, *, seed: int = 0) -> list[tuple[IntensityTests, IntensityTests]]:
    generator = np.random.default_rng(seed)

    def one() -> Outcome:
        kind = generator.integers(4)
        if kind == 0:
            few = generator.integers(10)
            return NotTestable(f"{few} disjoint pairs of neighbours across the boundary; at least 10 are needed")
        return NotTestable("the mask is empty") if kind == 1 else outcome(float(generator.random() ** 30))

    return [(IntensityTests(inside=one(), across=one()), IntensityTests(inside=one(), across=one())) for _ in range(samples)]


def same(one: IntensityColumns, two: IntensityColumns) -> bool:
    texts = [np.where(columns.reason >= 0, np.append(columns.reasons, "")[columns.reason], "") for columns in (one, two)]
    return np.array_equal(one.values, two.values) and np.array_equal(*texts)


def test_what_goes_in_comes_out() -> None:
    tests = made_tests(30)
    columns = IntensityColumns.of(tests)
    for row, (truth, mask) in enumerate(tests):
        for place, expected in enumerate((truth.inside, truth.across, mask.inside, mask.across)):
            if isinstance(expected, NotTestable):
                assert columns.reasons[columns.reason[row, place]] == expected.reason
                assert not columns.values[row, place].any()
            else:
                assert columns.reason[row, place] == -1
                assert columns.values[row, place].tolist() == [getattr(expected, name) for name in FIGURES]


def test_parts_join_to_the_whole() -> None:
    tests = made_tests(40)
    whole = IntensityColumns.of(tests)
    parts = IntensityColumns.concatenate([IntensityColumns.of(tests[a:b]) for a, b in ((0, 1), (1, 1), (1, 30), (30, 40))])
    assert same(whole, parts)
    order = np.random.default_rng(0).permutation(40)
    assert same(whole.take(order), IntensityColumns.of([tests[row] for row in order]))


def test_rejections_are_those_of_the_family_with_reasons_counted() -> None:
    tests = made_tests(200)
    families = IntensityColumns.of(tests).rejections()
    assert [family.name for family in families] == list(FAMILIES.values())
    for place, family in enumerate(families):
        outcomes = [(truth.inside, truth.across, mask.inside, mask.across)[place] for truth, mask in tests]
        p_values = sorted(each.p_value for each in outcomes if isinstance(each, TTest))
        # Holm: all before the first whose p is not below α over the number of those left.
        kept = [p >= 0.001 / (len(p_values) - rank) for rank, p in enumerate(p_values)]
        assert family.count.tested == len(p_values)
        assert family.count.rejected == (kept.index(True) if True in kept else len(kept))
        assert family.count.rejected_uncorrected == sum(p < 0.001 for p in p_values)
        assert family.count.rejected < family.count.rejected_uncorrected
        few, empty = "fewer than 10 disjoint pairs of neighbours across the boundary", "the mask is empty"
        assert set(family.reasons) == {few, empty}
        assert family.reasons[empty] == sum(each == NotTestable(empty) for each in outcomes)
        assert sum(family.reasons.values()) == family.count.not_testable
    constant = NotTestable("both samples are constant (0 and 3)")
    (first, *_) = IntensityColumns.of([(IntensityTests(inside=constant, across=constant),) * 2]).rejections()
    assert first.reasons == {"both samples are constant": 1}


def test_results_keep_subsets_and_tests_on_disk_and_over_shards(tmp_path: Path) -> None:
    plain, tests = made_results(), made_tests(40)
    results = made_results(subsets={"c20": np.arange(40) % 3 == 0}, intensity=IntensityColumns.of(tests))
    # Made in the order of numbers, sorted as texts.
    made = [int(key.removeprefix("test/").removesuffix("__0")) for key in results.key.tolist()]
    assert made != sorted(made)
    assert results.subsets["c20"].tolist() == [number % 3 == 0 for number in made]
    assert results.intensity is not None
    assert same(results.intensity, IntensityColumns.of([tests[number] for number in made]))
    results.save(tmp_path / "whole")
    with np.load(tmp_path / "whole" / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["subset_members"].shape == (len(plain), 1)
    read = Results.load(tmp_path / "whole")
    assert read.metrics() == results.metrics()
    assert np.array_equal(read.subsets["c20"], results.subsets["c20"])
    assert read.intensity is not None
    assert same(read.intensity, results.intensity)
    plain.save(tmp_path / "plain")
    old = Results.load(tmp_path / "plain")
    assert (old.subsets, old.intensity) == ({}, None)


def test_columns_that_cannot_be_are_refused() -> None:
    good = IntensityColumns.of(made_tests(5))
    beyond = np.full_like(good.values, 2.0)
    for changes in (
        {"values": good.values[:, :3]},
        {"values": beyond},
        {"values": np.full_like(good.values, np.nan)},
        {"reason": np.full_like(good.reason, 99)},
        {"reason": np.full_like(good.reason, -2)},
        {"reason": good.reason.astype(float)},
        {"reasons": np.array([1, 2])},
    ):
        with pytest.raises(ClipSegError, match="intensity tests"):
            replace(good, **changes)
    for changes in ({"intensity": good}, {"subsets": {"c20": np.ones(3, dtype=bool)}}, {"subsets": {"c20": np.ones(40)}}):
        with pytest.raises(ClipSegError, match=r"expected"):
            made_results(**changes)
