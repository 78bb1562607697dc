"""The intensity tests: known truths on simulated photos, and the pairs they draw."""

from dataclasses import astuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clipseg.measure.intensity import DIFFERENCES, REGIONS, _draw, _neighbours, gray_values, intensity_tests
from clipseg.measure.significance import NotTestable, TTest

DISC = (np.indices((40, 44)) - np.array([[[20]], [[22]]])).astype(float).__pow__(2).sum(axis=0) < 14**2


def photo(seed: int, *, edge: float = 0.0) -> NDArray[np.float64]:
    """Gray noise, the disc brighter by `edge`."""
    return np.random.default_rng(seed).normal(100, 10, DISC.shape) + edge * DISC


def p_values(*, edge: float, runs: int, **options: str) -> NDArray[np.float64]:
    """`[runs, 2]`: of the tests (1) and (2)."""
    found = []
    for seed in range(runs):
        tests = intensity_tests(photo(seed, edge=edge), DISC, seed=seed, **options)  # type: ignore[arg-type]
        assert isinstance(tests.inside, TTest)
        assert isinstance(tests.across, TTest)
        found.append((tests.inside.p_value, tests.across.p_value))
    return np.array(found)


@pytest.mark.parametrize("difference", DIFFERENCES)
@pytest.mark.parametrize("region", REGIONS)
def test_without_an_edge_both_tests_reject_as_rarely_as_they_say(region: str, difference: str) -> None:
    rates = (p_values(edge=0, runs=250, region=region, difference=difference) < 0.1).mean(axis=0)
    assert np.abs(rates - 0.1).max() < 3 * np.sqrt(0.1 * 0.9 / 250)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_an_edge_is_found_across_and_never_inside(difference: str) -> None:
    p = p_values(edge=40, runs=40, difference=difference)
    assert (p[:, 1] < 0.001).all()
    assert (p[:, 0] < 0.001).sum() <= 1


def test_sizes_signs_and_effects() -> None:
    tests = intensity_tests(photo(0, edge=40), DISC, seed=0)
    inside, across = tests.inside, tests.across
    assert isinstance(inside, TTest)
    assert isinstance(across, TTest)
    # 42 disjoint pairs or so fit along the boundary of the disc, 200 within it.
    assert inside.size == 100
    assert 40 <= across.size < 100
    # Absolute differences of noise have a mean of 2 · 10 / √π = 11.3, across the edge one of 40.
    assert across.difference == pytest.approx(11.3 - 40, abs=4)
    assert across.high < 0
    assert across.effect_size < -2
    signed = intensity_tests(photo(0, edge=40), DISC, seed=0, difference="signed").across
    assert isinstance(signed, TTest)
    assert signed.difference == pytest.approx(0 - 40, abs=6)


def test_a_signed_mean_misses_an_edge_between_lighter_and_darker() -> None:
    surroundings = np.where(np.indices(DISC.shape)[0] < 20, 60.0, -60.0) * ~DISC
    absolute, signed = (
        intensity_tests(photo(1) + surroundings, DISC, seed=0, difference=difference).across for difference in DIFFERENCES
    )
    assert isinstance(absolute, TTest)
    assert isinstance(signed, TTest)
    assert absolute.p_value < 1e-6 < 0.01 < signed.p_value


def test_the_seed_decides_the_draw_alone() -> None:
    one, same, other = (intensity_tests(photo(0), DISC, seed=seed) for seed in (3, 3, 4))
    assert one == same
    assert one != other


def test_a_box_is_the_mask_of_its_rectangle() -> None:
    box = np.zeros_like(DISC)
    box[7:34, 9:36] = True
    assert intensity_tests(photo(0), DISC, seed=0, region="box") == intensity_tests(photo(0), box, seed=0)
    assert intensity_tests(photo(0), DISC, seed=0, region="box") != intensity_tests(photo(0), DISC, seed=0)


@pytest.mark.parametrize("region", REGIONS)
def test_what_cannot_be_tested_says_why(region: str) -> None:
    empty, full, dot = np.zeros_like(DISC), np.ones_like(DISC), np.zeros_like(DISC)
    dot[0, 0] = True
    line = np.zeros_like(DISC)
    line[5] = True
    for mask, inside, across in (
        (empty, "the mask is empty", "the mask is empty"),
        (full, None, "0 disjoint pairs of neighbours across the boundary"),
        (dot, "0 disjoint pairs of neighbours inside the object", "0 disjoint pairs of neighbours inside the object"),
        (line, "disjoint pairs of neighbours inside the object in each half", "disjoint pairs of neighbours inside the object"),
    ):
        tests = intensity_tests(photo(0), mask, seed=0, region=region)  # type: ignore[arg-type]
        for outcome, reason in ((tests.inside, inside), (tests.across, across)):
            assert isinstance(outcome, TTest if reason is None else NotTestable)
            assert reason is None or reason in str(outcome)
    flat = intensity_tests(np.full(DISC.shape, 7.0), DISC, seed=0, region=region)  # type: ignore[arg-type]
    assert "both samples are constant (0 and 0)" in str(flat.inside)
    assert "both samples are constant (0 and 0)" in str(flat.across)
    sharp = intensity_tests(100.0 * DISC, DISC, seed=0)
    assert "both samples are constant (0 and 100)" in str(sharp.across)


def test_no_nan_on_any_small_mask() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        shape = generator.integers(1, 14, size=2)
        gray = generator.integers(0, 1 + generator.integers(256), size=shape).astype(float)
        tests = intensity_tests(gray, generator.random(shape) < generator.random(), seed=0)
        for outcome in (tests.inside, tests.across):
            assert isinstance(outcome, NotTestable) or np.isfinite(astuple(outcome)).all()


def test_pairs_are_neighbours_and_drawn_disjoint() -> None:
    region = np.random.default_rng(0).random((5, 7)) < 0.6
    inner, crossing = _neighbours(region)
    undirected = {tuple(sorted(pair)) for pair in np.concatenate([inner, crossing]).tolist()}
    assert len(undirected) == len(inner) + len(crossing)
    neither = sum((~region[one] & ~region[two]).sum() for one, two in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])))
    assert len(undirected) + neither == 4 * 7 + 5 * 6
    for pairs, ends in ((inner, (True, True)), (crossing, (True, False))):
        assert len(pairs)
        assert (region.ravel()[pairs] == ends).all()
        assert (np.abs(pairs // 7 - pairs[:, ::-1] // 7) + np.abs(pairs % 7 - pairs[:, ::-1] % 7) == 1).all()
    pairs, used = _neighbours(np.ones((5, 7), dtype=bool))[0], {0, 1}
    drawn = _draw(pairs, 1000, used, np.random.default_rng(0))
    assert len(np.unique(drawn)) == drawn.size == len(used) - 2
    assert not {0, 1} & set(drawn.ravel().tolist())
    assert len(_draw(pairs, 3, set(), np.random.default_rng(0))) == 3
    assert _draw(pairs[:0], 3, set(), np.random.default_rng(0)).shape == (0, 2)


def test_some_of_very_many_pairs_are_enough_to_draw_from() -> None:
    pairs = _neighbours(np.ones((90, 90), dtype=bool))[0]
    used = set(range(0, 800, 4))
    assert len(_draw(pairs, 200, used, np.random.default_rng(0))) == 200
    assert len(used) == 600


def test_gray_is_pillows() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    assert np.array_equal(gray_values(image), np.asarray(Image.fromarray(image).convert("L")))
    assert np.abs(gray_values(image) - image @ [0.299, 0.587, 0.114]).max() <= 0.51
    assert gray_values(image).dtype == np.float64
