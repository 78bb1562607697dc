"""What a threshold and a temperature of its own are worth to a phrase: counted from logits, without keeping any map."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clipseg.measure.metrics import THRESHOLDS
from clipseg.network.calibration import Calibration

EDGES = np.linspace(-16, 16, 1025)  # of the logits' histogram; float32 probabilities tell no more
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
TEMPERATURES = np.geomspace(1 / 4, 4, 81)


def logit_histogram(probabilities: NDArray[np.float32], mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of background and target by their logit: maps `[H, W]` and 0 or 1 -> int64 `[2, bins]`."""
    p = probabilities.astype(np.float64)
    logits = np.clip(np.log(np.maximum(p, 1e-30)) - np.log(np.maximum(1 - p, 1e-30)), EDGES[0], EDGES[-1])
    return np.stack([np.histogram(logits[mask == truth], EDGES)[0] for truth in (0, 1)])


def log_loss(histogram: NDArray[np.int64], temperature: float) -> float:
    """The mean of -log of what was given to the truth, in nats a pixel."""
    background, target = (np.logaddexp(0, sign * CENTRES / temperature) for sign in (1, -1))
    return float((histogram[0] * background + histogram[1] * target).sum() / histogram.sum())


def calibrate(histogram: NDArray[np.int64]) -> Calibration:
    """Choose the temperature of the least log loss and the threshold, one of the 49 before it, of the largest IoU.

    Args:
        histogram: int64 `[2, bins]` of `logit_histogram`, summed over a phrase's masks, of which one holds something.
    """
    temperature = float(TEMPERATURES[np.argmin([log_loss(histogram, value) for value in TEMPERATURES])])
    logits = np.log(THRESHOLDS / (1 - THRESHOLDS))
    above = CENTRES[None] > logits[:, None]
    hits, false = above @ histogram[1], above @ histogram[0]
    best = logits[np.argmax(hits / (false + histogram[1].sum()))]
    return Calibration(temperature, float(1 / (1 + np.exp(-best / temperature))))


def raw_threshold(calibration: Calibration) -> float:
    """The one of the 49 thresholds that cuts probabilities before the temperature as the calibration does after it."""
    logit = calibration.temperature * np.log(calibration.threshold / (1 - calibration.threshold))
    return float(THRESHOLDS[np.argmin(np.abs(THRESHOLDS - 1 / (1 + np.exp(-logit))))])


def choose_thresholds(groups: NDArray[np.str_], calibrations: Mapping[str, Calibration], default: float) -> NDArray[np.float64]:
    """The threshold of each sample, by its class; `default` where that has none of its own."""
    chosen = {name: raw_threshold(calibration) for name, calibration in calibrations.items()}
    return np.array([chosen.get(str(group), default) for group in groups])
