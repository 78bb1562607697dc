"""How a prediction fails: kinds told apart by rules on a sample's counts at the threshold."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clipseg.measure.metrics import sample_iou
from clipseg.measure.results import Results

FAILED_BELOW = 0.5  # IoU

# Kind -> its rule, in words; a sample is of the first kind that holds.
KINDS: Mapping[str, str] = {
    "found where nothing is": "the truth is empty, and something is predicted",
    "missed": "there is a truth, and nothing is predicted",
    "elsewhere": "something is predicted, and does not meet the truth",
    "too much": f"IoU below {FAILED_BELOW}, and at least as many pixels too many as are missing",
    "too little": f"IoU below {FAILED_BELOW}, and more pixels missing than too many",
}


def failures(results: Results) -> dict[str, NDArray[np.int64]]:
    """The rows of `results` that fail, by kind, at the thresholds of `Results.cut`; each row is in one kind at most."""
    counts = results.cut()
    tp, fp, positives = counts.tp[:, 0], counts.fp[:, 0], counts.positives
    failed = sample_iou(counts, results.threshold) < FAILED_BELOW
    rules = (
        (positives == 0) & (fp > 0),
        (positives > 0) & (tp + fp == 0),
        tp == 0,
        fp >= positives - tp,
        fp < positives - tp,
    )
    rows, left = {}, failed
    for kind, rule in zip(KINDS, rules, strict=True):
        rows[kind] = np.flatnonzero(left & rule)
        left = left & ~rule
    return rows


def pick_failures(results: Results, n: int, seed: int) -> dict[str, list[str]]:
    """The keys of up to `n` samples of each kind that occurs, drawn with `seed`."""
    generator = np.random.default_rng(seed)
    return {
        kind: results.key[generator.permutation(rows)[:n]].tolist() for kind, rows in failures(results).items() if len(rows)
    }
