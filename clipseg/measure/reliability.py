"""Are probabilities what they say? How often pixels of a predicted probability lie in the truth, from the counts alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipseg.measure.metrics import THRESHOLDS, SampleCounts


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
    total = counts.pooled()
    positives = -np.diff(np.concatenate([total.positives, total.tp[0], [0]]))
    pixels = -np.diff(np.concatenate([total.pixels, total.tp[0] + total.fp[0], [0]]))
    ends = np.concatenate([[0.0], THRESHOLDS.astype(np.float64), [1.0]])
    probability = (ends[:-1] + ends[1:]) / 2
    frequency = np.divide(positives, pixels, out=np.full(len(pixels), np.nan), where=pixels > 0)
    distance = np.where(pixels > 0, np.abs(frequency - probability), 0.0)
    return Reliability(
        probability=probability,
        frequency=frequency,
        share=pixels / max(pixels.sum(), 1),
        error=_mean(distance, pixels),
        error_found=_mean(distance[1:], pixels[1:]),
    )


def _mean(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    return float((values * weights).sum() / max(weights.sum(), 1))
