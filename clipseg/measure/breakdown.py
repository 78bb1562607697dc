"""Where a model is good: IoU over the size of the object and over classes (the paper's Fig. 8), and on named subsets."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.measure.metrics import SampleCounts, sample_iou
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval, NotTestable, cluster_bootstrap

SIZE_EDGES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)  # shares of the image, each bin with its upper end
SHOWN_CLASSES = 30
_REPEATS = 2000  # of each bootstrap: there are dozens, and their ends are drawn a few pixels wide


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some samples: their mean IoU in percent, its 95% interval by a bootstrap clustered by image, and IoU of summed counts."""

    name: str
    samples: int
    mean: float
    interval: Interval | NotTestable
    pooled: float


def by_size(results: Results, *, seed: int = 0) -> list[Part]:
    """IoU over the share of the counted pixels that the object takes; empty truths and empty bins are left out."""
    share = results.counts.positives / np.maximum(results.counts.pixels, 1)
    bins = np.searchsorted(SIZE_EDGES, share, side="left") - 1
    parts = []
    for place, (low, high) in enumerate(pairwise(SIZE_EDGES)):
        rows = np.flatnonzero((bins == place) & (share > 0))
        if len(rows):
            parts.append(_part(results, rows, f"{100 * low:g} to {100 * high:g}%", seed))
    return parts


def by_class(results: Results, *, seed: int = 0) -> list[Part]:
    """IoU of the classes: of the most frequent groups that mIoU averages over; where each sample is one, of phrases.

    Returns:
        At most 30, the most frequent first, each with at least two samples; empty truths are left out.
    """
    labels = results.phrase if (results.group == results.key).all() else results.group
    shown = np.flatnonzero(results.counts.positives > 0)
    names, inverse, counts = np.unique(labels[shown], return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:SHOWN_CLASSES]
    return [_part(results, shown[inverse == place], str(names[place]), seed) for place in order.tolist() if counts[place] > 1]


def _part(results: Results, rows: NDArray[np.int64], name: str, seed: int) -> Part:
    counts = SampleCounts(*(column[rows] for column in results.counts.columns))
    iou = 100 * sample_iou(counts, results.threshold)
    return Part(
        name=name,
        samples=len(rows),
        mean=float(iou.mean()),
        interval=cluster_bootstrap(iou, results.image_key[rows], seed=seed, repeats=_REPEATS),
        pooled=100 * float(sample_iou(counts.pooled(), results.threshold)[0]),
    )


def subset_rows(results: Results) -> list[dict[str, Any]]:
    """PhraseCut's own figures on its named subsets, in percent, with all samples first; empty where no subset is known."""
    figures = results.metrics()
    names = [name for name in results.subsets if f"subset/{name}/samples" in figures]
    return [_subset(figures, "", "all")] + [_subset(figures, f"subset/{name}/", name) for name in names] if names else []


def _subset(figures: Mapping[str, float], prefix: str, name: str) -> dict[str, Any]:
    shown = ("mean_iou_official", "cum_iou_official", "pr@0.5", "pr@0.7", "pr@0.9")
    return {
        "name": name,
        "samples": int(figures[f"{prefix}samples"]),
        "figures": [100 * figures[prefix + figure] for figure in shown],
    }
