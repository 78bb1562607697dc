"""Are probabilities what they say? How often pixels of a predicted probability lie in the truth, from the counts alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipseg.measure.metrics import THRESHOLDS, SampleCounts

_ENDS = np.concatenate([[0.0], THRESHOLDS.astype(np.float64), [1.0]])
_MIDDLES = (_ENDS[:-1] + _ENDS[1:]) / 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Reliability:
    """Pixels of all samples by their predicted probability, in 50 bins between 0, the 49 thresholds and 1.

    Attributes:
        probability: float `[50]`, the middle of each bin; what a pixel's own probability is within it is not recorded.
        frequency: float `[50]`, the share of its pixels that lie in the truth; NaN where there is none.
        share: float `[50]`, of all pixels.
        error: the expected calibration error: the mean of |frequency - probability| over pixels, known to 0.01, half a bin.
        error_found: the same over pixels with a probability above 0.02: most others are background that nobody doubts.
    """

    probability: NDArray[np.float64]
    frequency: NDArray[np.float64]
    share: NDArray[np.float64]
    error: float
    error_found: float


def reliability(counts: SampleCounts) -> Reliability:
    """The reliability of all pixels that were counted."""
    (positives,), (pixels,) = _by_bin(counts.pooled())
    probability = _MIDDLES
    frequency = np.divide(positives, pixels, out=np.full(len(pixels), np.nan), where=pixels > 0)
    distance = np.where(pixels > 0, np.abs(frequency - probability), 0.0)
    return Reliability(
        probability=probability,
        frequency=frequency,
        share=pixels / max(pixels.sum(), 1),
        error=_mean(distance, pixels),
        error_found=_mean(distance[1:], pixels[1:]),
    )


def _by_bin(counts: SampleCounts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of the truth, and all pixels, of each sample in each bin, `[N, 50]`."""
    nothing = np.zeros((len(counts), 1), dtype=np.int64)
    return (
        -np.diff(np.concatenate([counts.positives[:, None], counts.tp, nothing], axis=1)),
        -np.diff(np.concatenate([counts.pixels[:, None], counts.tp + counts.fp, nothing], axis=1)),
    )


def brier_score(counts: SampleCounts) -> NDArray[np.float64]:
    """Return the mean squared distance of a pixel's probability from its truth, 1 or 0, of each sample, float64 `[N]`.

    A probability is known as the middle of its bin, 0.02 wide: a pixel's part is known to 0.02.
    """
    positives, pixels = _by_bin(counts)
    lost = positives @ (1 - _MIDDLES) ** 2 + (pixels - positives) @ _MIDDLES**2
    return lost / np.maximum(counts.pixels, 1)


def log_loss(counts: SampleCounts) -> NDArray[np.float64]:
    """Return the mean of -log of what a pixel's truth was given, in nats, of each sample, float64 `[N]`.

    A probability is known as the middle of its bin, 0.02 wide, so that none is below 0.01: a pixel costs at most 4.6.
    """
    positives, pixels = _by_bin(counts)
    lost = -(positives @ np.log(_MIDDLES) + (pixels - positives) @ np.log(1 - _MIDDLES))
    return lost / np.maximum(counts.pixels, 1)


def worst_tenth(values: NDArray[np.float64], images: NDArray[np.str_]) -> float:
    """Return the mean of the lowest tenth of images, one at least, of which each is the mean of its values `[N]`."""
    _, index = np.unique(images, return_inverse=True)
    of_images = np.sort(np.bincount(index, weights=values) / np.bincount(index))
    return float(of_images[: max(1, round(len(of_images) / 10))].mean())


def _mean(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    return float((values * weights).sum() / max(weights.sum(), 1))


def presence_figures(scores: NDArray[np.float32], threshold: float) -> dict[str, float]:
    """Return whether maps tell what is there, from the columns `Results.presence`, `[N, 2]`.

    Returns:
        `auroc`, how often a prompt of what is there has a larger score than one of what is not, ties by half; `fires`, the
        share of the latter above the threshold. Nothing where none was asked.
    """
    present, absent = np.sort(scores[:, 0]), scores[~np.isnan(scores[:, 1]), 1]
    if not len(absent):
        return {}
    below = np.searchsorted(present, absent, "left") + np.searchsorted(present, absent, "right")
    return {"auroc": float(1 - below.mean() / 2 / len(present)), "fires": float((absent > threshold).mean())}
