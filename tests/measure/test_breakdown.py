"""Figures that a report breaks down: sizes, classes, subsets, reliability, failures by kind; on counts with known answers."""

import numpy as np
import pytest
from made_results import made_results

from clipseg.measure.breakdown import SIZE_EDGES, by_class, by_size, subset_rows
from clipseg.measure.failures import KINDS, failures, pick_failures
from clipseg.measure.metrics import SampleCounts, count, sample_iou
from clipseg.measure.reliability import brier_score, log_loss, reliability, worst_tenth
from clipseg.measure.significance import Interval, NotTestable


def constant(tp: list[int], fp: list[int], positives: list[int], pixels: int = 1000) -> SampleCounts:
    """Counts that are the same at every threshold."""
    columns = (np.repeat(np.array(values)[:, None], 49, axis=1) for values in (tp, fp))
    return SampleCounts(*columns, np.array(positives), np.full(len(positives), pixels))


def with_counts(counts: SampleCounts, **changes):
    keys = np.array([f"test/{row}" for row in range(len(counts))])
    columns = {"key": keys, "image_key": keys, "phrase": keys, "group": keys, "counts": counts}
    sizes = {"height": np.full(len(keys), 20), "width": np.full(len(keys), 50)}
    official = {"official_intersection": counts.tp[:, 14], "official_union": counts.positives + counts.fp[:, 14]}
    return made_results(**columns | sizes | official | changes)


def test_iou_over_size_is_the_mean_of_each_bin() -> None:
    results = with_counts(constant([5, 8, 10, 100, 0, 300], [0, 0, 10, 0, 3, 0], [5, 10, 20, 200, 0, 400]))
    parts = {part.name: part for part in by_size(results)}
    assert [(name, part.samples) for name, part in parts.items()] == [
        ("0 to 0.5%", 1),
        ("0.5 to 1%", 1),
        ("1 to 2%", 1),
        ("10 to 20%", 1),
        ("20 to 40%", 1),
    ]
    assert [part.mean for part in parts.values()] == pytest.approx([100, 80, 100 / 3, 50, 75])
    assert all(isinstance(part.interval, NotTestable) for part in parts.values())
    many = made_results(quality=0.3)
    assert sum(part.samples for part in by_size(many)) == len(many)
    assert all(
        isinstance(part.interval, Interval) and part.interval.low < part.mean < part.interval.high for part in by_size(many)
    )
    assert SIZE_EDGES[0] == 0
    assert SIZE_EDGES[-1] == 1


def test_iou_over_classes_takes_groups_and_else_the_most_frequent_phrases() -> None:
    counts = constant([4, 8, 10, 0, 6], [0, 0, 0, 0, 0], [8, 8, 10, 10, 8])
    phrases = np.array(["dog", "cat", "dog", "dog", "fish"])
    (dog,) = by_class(with_counts(counts, phrase=phrases))
    assert (dog.name, dog.samples) == ("dog", 3)
    assert dog.mean == pytest.approx(50)
    assert dog.pooled == pytest.approx(100 * 14 / 28)
    groups = np.array(["x", "y", "y", "x", "y"])
    parts = by_class(with_counts(counts, phrase=phrases, group=groups))
    assert [(part.name, part.samples) for part in parts] == [("y", 3), ("x", 2)]
    assert by_class(with_counts(counts)) == []


def test_subsets_have_the_official_figures_of_their_samples() -> None:
    counts = constant([4, 8, 10, 0], [0, 0, 10, 5], [8, 8, 10, 10])
    some, none = np.array([True, False, True, False]), np.zeros(4, dtype=bool)
    results = with_counts(counts, subsets={"c20": some, "c_coco": none})
    figures = results.metrics()
    assert figures["subset/c20/mean_iou_official"] == pytest.approx(0.5)
    assert figures["subset/c20/cum_iou_official"] == pytest.approx(14 / 28)
    assert figures["subset/c20/pr@0.3"] == 1
    assert figures["subset/c20/samples"] == 2
    assert not any("c_coco" in name for name in figures)
    rows = subset_rows(results)
    assert [(row["name"], row["samples"]) for row in rows] == [("all", 4), ("c20", 2)]
    assert rows[1]["figures"][:2] == pytest.approx([50, 50])
    assert subset_rows(with_counts(counts)) == []
    assert not any(name.startswith("subset/") for name in results.metrics(0.5))


def test_brier_score_and_log_loss_are_those_of_the_pixels_at_the_middle_of_their_bins() -> None:
    rng = np.random.default_rng(0)
    probability, mask = rng.random((4, 30, 30), dtype=np.float32), (rng.random((4, 30, 30)) < 0.3).astype(np.uint8)
    valid = (rng.random((4, 30, 30)) < 0.8).astype(np.uint8)
    counts = count(probability, mask, valid)
    middle = np.ceil(np.maximum(probability, 1e-9) * 50) / 50 - 0.01
    given = np.where(mask == 1, middle, 1 - middle)
    for ours, of_pixels, exact in (
        (brier_score(counts), (1 - given) ** 2, np.where(mask == 1, 1 - probability, probability) ** 2),
        (log_loss(counts), -np.log(given), -np.log(np.where(mask == 1, probability, 1 - probability))),
    ):
        inside = [of_pixels[sample][valid[sample] == 1].mean() for sample in range(4)]
        assert ours == pytest.approx(inside, abs=2e-3)
        assert ours == pytest.approx([exact[sample][valid[sample] == 1].mean() for sample in range(4)], abs=0.02)
    certain = count(mask.astype(np.float32), mask)
    assert brier_score(certain) == pytest.approx(np.full(4, 1e-4))
    assert log_loss(certain) == pytest.approx(np.full(4, -np.log(0.99)))


def test_the_worst_tenth_is_of_images() -> None:
    values, images = np.arange(40.0), np.array([str(number // 2) for number in range(40)])
    assert worst_tenth(values, images) == pytest.approx((0.5 + 2.5) / 2)
    assert worst_tenth(values[:4], images[:4]) == 0.5


def test_reliability_is_that_of_the_pixels_themselves() -> None:
    generator = np.random.default_rng(0)
    probability = generator.random((6, 60, 60)).astype(np.float32) ** 2
    mask = (generator.random(probability.shape) < np.sqrt(probability)).astype(np.uint8)
    found = reliability(count(probability, mask))
    bins = np.minimum((probability * 50).astype(int), 49)
    for place in (0, 7, 49):
        inside = bins == place
        assert found.frequency[place] == pytest.approx(mask[inside].mean(), abs=0.02)
        assert found.share[place] == pytest.approx(inside.mean(), abs=1e-3)
    assert found.share.sum() == pytest.approx(1)
    assert found.probability[0] == pytest.approx(0.01)
    by_pixel = np.abs(np.sqrt(probability) - probability).mean()
    assert found.error == pytest.approx(by_pixel, abs=0.02)
    honest = (generator.random(probability.shape) < probability).astype(np.uint8)
    assert reliability(count(probability, honest)).error < 0.02


def test_an_overconfident_constant_map_is_found_out() -> None:
    found = reliability(count(np.full((1, 10, 10), 0.9, dtype=np.float32), np.eye(10, dtype=np.uint8)[None]))
    assert np.isnan(found.frequency).sum() == 49
    assert np.nanmax(found.frequency) == pytest.approx(0.1)
    assert found.error == found.error_found == pytest.approx(0.79, abs=0.011)


def test_failures_are_told_apart_by_their_counts() -> None:
    kinds = {
        "found where nothing is": (0, 7, 0),
        "missed": (0, 0, 9),
        "elsewhere": (0, 9, 9),
        "too much": (9, 90, 10),
        "too little": (3, 1, 10),
    }
    tp, fp, positives = map(list, zip(*[*kinds.values(), (9, 1, 10), (0, 0, 0), (10, 10, 10)], strict=True))
    results = with_counts(constant(tp, fp, positives))
    assert tuple(kinds) == tuple(KINDS)
    assert {kind: rows.tolist() for kind, rows in failures(results).items()} == {kind: [n] for n, kind in enumerate(kinds)}
    assert pick_failures(results, 3, 0) == {kind: [f"test/{n}"] for n, kind in enumerate(kinds)}


def test_every_failure_is_of_one_kind() -> None:
    results = made_results(quality=0.2)
    rows = np.concatenate(list(failures(results).values()))
    assert sorted(rows.tolist()) == np.flatnonzero(sample_iou(results.counts, 0.3) < 0.5).tolist()
    assert len(rows) > 5
    picked = pick_failures(results, 2, 0)
    assert all(len(keys) <= 2 for keys in picked.values())
    assert picked == pick_failures(results, 2, 0)
