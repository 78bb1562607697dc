"""How sure are the figures of one evaluation? Its images are drawn again and again, with replacement, and measured anew.

Phrases of one image succeed and fail together, so images are drawn as wholes. Counts are summed per image first and weighted
after, so that a draw costs a row of a matrix product and not a pass over the samples.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from clipseg.measure.average_precision import Definition, average_precision
from clipseg.measure.metrics import SampleCounts, pooled_curves, threshold_index
from clipseg.measure.results import Results
from clipseg.measure.significance import CONFIDENCE, Interval

REPEATS = 1000


def redrawn(
    results: Results, *, definition: Definition, threshold: float | None = None, seed: int = 0, repeats: int = REPEATS
) -> dict[str, NDArray[np.float64]]:
    """The figures of an evaluation over drawn sets of its images.

    Results on the same images are drawn alike, so that differences between runs, draw by draw, are paired.

    Args:
        results: of one run.
        definition: of the ratios, see `metrics`.
        threshold: of the figures that are not at their best one; None for the evaluation's.
        seed: of the draws.
        repeats: R, how many sets.

    Returns:
        `miou`, `iou_fg`, `iou_bin`, each also with `_best`, and `ap`, as in `metrics.summarise`: fractions, float64 `[R]`.
    """
    images, image_index = np.unique(results.image_key, return_inverse=True)
    # Other images are drawn independently of these.
    generator = np.random.default_rng([seed, zlib.crc32("\n".join(images.tolist()).encode("utf-8", "replace"))])
    weights = generator.multinomial(len(images), np.full(len(images), 1 / len(images)), size=repeats)
    curves = pooled_curves(_weighted(results.counts, image_index, weights), definition=definition)
    precision, recall = curves.pop("precision"), curves.pop("recall")
    curves["miou"] = _mean_over_groups(results, image_index, weights, definition)
    index = threshold_index(results.threshold if threshold is None else threshold)
    figures = {name: values[:, index] for name, values in curves.items()}
    figures |= {f"{name}_best": values.max(axis=1) for name, values in curves.items()}
    found = [average_precision(*curve, definition=definition) for curve in zip(precision, recall, strict=True)]
    return figures | {"ap": np.array(found)}


def _weighted(counts: SampleCounts, image_index: NDArray[np.intp], weights: NDArray[np.int64]) -> SampleCounts:
    """Counts summed over all samples, a row a draw; `weights` `[R, I]` says how often a draw holds each image."""
    drawn = weights[:, np.unique(image_index)].astype(np.float64)  # sums of counts stay far below 2^53, and exact
    of_images = counts.grouped(image_index)
    return SampleCounts(*((drawn @ column.astype(np.float64)).astype(np.int64) for column in of_images.columns))


def _mean_over_groups(
    results: Results, image_index: NDArray[np.intp], weights: NDArray[np.int64], definition: Definition
) -> NDArray[np.float64]:
    """mIoU over the thresholds, `[R, 49]`: the mean over the groups that a draw holds."""
    names, group_of = np.unique(results.group, return_inverse=True)
    if len(names) == len(results):  # each sample is a group, as on PhraseCut: its ratio does not depend on the draw
        iou = pooled_curves(results.counts, definition=definition)["iou_fg"]
        drawn = weights[:, image_index].astype(np.float64)
        return (drawn @ iou) / drawn.sum(axis=1, keepdims=True)
    total, held = np.zeros((len(weights), results.counts.tp.shape[1])), np.zeros((len(weights), 1))
    for group in range(len(names)):
        rows = np.flatnonzero(group_of == group)
        part = SampleCounts(*(column[rows] for column in results.counts.columns))
        occurs = weights[:, image_index[rows]].any(axis=1, keepdims=True)
        total += occurs * pooled_curves(_weighted(part, image_index[rows], weights), definition=definition)["iou_fg"]
        held += occurs
    return total / held


def percentiles(values: NDArray[np.float64]) -> Interval:
    """The interval that holds the middle 95% of the draws `[R]`."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))
