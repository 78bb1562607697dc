"""Drawn sets of images against a slow loop that puts each set together and measures it whole."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_results import made_results

from clipseg.measure.metrics import DEFINITIONS, Definition, SampleCounts, summarise
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval, cluster_bootstrap
from clipseg.paper.resampling import percentiles, redrawn


def draws_by_hand(results: Results, definition: Definition, repeats: int) -> tuple[list[list[int]], list[dict[str, float]]]:
    """How often each image was drawn, found by probes; and the figures of those sets, put together sample by sample."""
    images, index = np.unique(results.image_key, return_inverse=True)
    found = []
    for image in range(len(images)):
        # One pixel a sample, found on this image alone: the share that is found tells how often the image is there.
        hit, one = (index == image).astype(np.int64), np.ones(len(index), dtype=np.int64)
        counts = SampleCounts(np.repeat(hit[:, None], 49, axis=1), np.zeros((len(hit), 49), dtype=np.int64), one, one)
        probe = replace(results, counts=counts, official_intersection=None, official_union=None)
        share = redrawn(probe, definition="plain", repeats=repeats)["iou_fg"]
        found.append(np.rint(share * len(images)).astype(int).tolist())
    figures = []
    for times in zip(*found, strict=True):
        rows = [row for row in range(len(index)) for _ in range(times[index[row]])]
        counts = SampleCounts(*(column[rows] for column in results.counts.columns))
        # A sample drawn twice counts as two where every sample is a group of its own.
        own = len(np.unique(results.group)) == len(results)
        groups: Any = np.arange(len(rows)) if own else results.group[rows]
        figures.append(summarise(counts, groups, definition=definition, threshold=0.4))
    return found, figures


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("classes", [None, 3])
def test_figures_are_those_of_the_drawn_images(definition: Definition, classes: int | None) -> None:
    groups = {} if classes is None else {"group": np.array([f"class {sample * classes // 12}" for sample in range(12)])}
    results = made_results(images=6, **groups)
    times, expected = draws_by_hand(results, definition, repeats=15)
    assert len({tuple(draw) for draw in zip(*times, strict=True)}) == 15
    assert all(sum(draw) == 6 for draw in zip(*times, strict=True))
    found = redrawn(results, definition=definition, threshold=0.4, repeats=15)
    for name, values in found.items():
        assert values.tolist() == pytest.approx([figures[name] for figures in expected]), name


def test_the_same_images_are_drawn_alike_and_others_are_not() -> None:
    one, two = (redrawn(made_results(seed=seed), definition="plain")["miou"] for seed in (0, 0))
    assert (one == two).all()
    renamed = np.array([f"other {sample // 2}" for sample in range(40)])
    assert (redrawn(made_results(image_key=renamed), definition="plain")["miou"] != one).any()
    assert (redrawn(made_results(), definition="plain", seed=1)["miou"] != one).any()


def test_the_interval_of_a_mean_is_the_clustered_bootstrap_s() -> None:
    results = made_results(images=100, quality=0.3)
    ours = percentiles(redrawn(results, definition="plain", repeats=4000)["miou"])
    means = results.counts.tp[:, 14] / (results.counts.positives + results.counts.fp[:, 14])
    theirs = cluster_bootstrap(means, results.image_key, seed=0)
    assert isinstance(theirs, Interval)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.0005)
