"""Which of many classes each pixel is: a confusion matrix, and from it the figures of generalised zero-shot segmentation.

Binary maps, one a class name, come in; the largest wins each pixel. Counts are integers, so that images and shards add up
exactly. Source: the paper, Sec. 4.2, Tab. 4.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError

if TYPE_CHECKING:  # the reports are made from counts alone, without torch
    from torch import Tensor

BACKGROUND_FACTOR = 3.0
_LOWERED = np.float32(10)  # what is taken from all: changes no order, but rounds to ties
IGNORED = 255


def predict_with_prompt(
    probabilities: "NDArray[Any] | Tensor", *, background_factor: float = BACKGROUND_FACTOR
) -> NDArray[np.uint8]:
    """The most probable class of each pixel, the background having a prompt of its own, as released.

    Args:
        probabilities: `[1 + C, H, W]` in [0, 1]: of the prompt "background", then of the C class names.
        background_factor: what the background's probability is multiplied by.

    Returns:
        uint8 `[H, W]`: 0 background, 1 to C; of equals, after 10 is taken off in float32 as released, the first.

    Raises:
        ClipSegError: probabilities outside [0, 1].
    """
    values = _checked(probabilities).copy()
    values[0] *= np.float32(background_factor)
    values -= _LOWERED
    return values.argmax(axis=0).astype(np.uint8)


def predict_with_threshold(probabilities: "NDArray[Any] | Tensor", *, threshold: float) -> NDArray[np.uint8]:
    """The most probable class of each pixel, and background where none is above a threshold.

    Args:
        probabilities: `[C, H, W]` in [0, 1], of the C class names.
        threshold: in [0, 1].

    Returns:
        uint8 `[H, W]`: 0 background, 1 to C; of equals the first.

    Raises:
        ClipSegError: probabilities outside [0, 1].
    """
    values = _checked(probabilities)
    return np.where(values.max(axis=0) > np.float32(threshold), values.argmax(axis=0) + 1, 0).astype(np.uint8)


def _checked(probabilities: "NDArray[Any] | Tensor") -> NDArray[np.float32]:
    values = _array(probabilities).astype(np.float32, copy=False)
    assert values.ndim == 3, values.shape
    if values.size == 0 or not (values.min() >= 0 and values.max() <= 1):  # NaN fails both
        raise ClipSegError(f"probabilities of shape {values.shape} outside [0, 1]; apply a sigmoid to logits")
    return values


def _array(values: "NDArray[Any] | Tensor") -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def confusion(predicted: NDArray[np.uint8], labels: "NDArray[Any] | Tensor", *, classes: int) -> NDArray[np.int64]:
    """Count how often each class was taken for each; sum the matrices of all images.

    Args:
        predicted: uint8 `[H, W]`, 0 background, 1 to `classes`.
        labels: uint8 `[H, W]`, the truth, with 255 where a pixel is not counted.
        classes: how many besides the background.

    Returns:
        int64 `[1 + classes, 1 + classes]`: rows are the truth, columns the prediction.

    Raises:
        ClipSegError: a label that is none of the classes.
    """
    truth = _array(labels)
    assert predicted.shape == truth.shape, (predicted.shape, truth.shape)
    counted = truth != IGNORED
    truth, taken = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, values in (("label", truth), ("predicted", taken)):
        if values.size and not 0 <= values.min() <= values.max() <= classes:
            raise ClipSegError(f"{name} values from {values.min()} to {values.max()}; expected 0 to {classes} and {IGNORED}")
    size = classes + 1
    return np.bincount(truth * size + taken, minlength=size * size).reshape(size, size)


def class_iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each class, the background first; NaN for a class that neither the truth nor the prediction holds."""
    hits = np.diagonal(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def image_miou(matrix: NDArray[np.int64]) -> float:
    """The mean IoU over what the truth or the prediction of one image holds, the background among it; some pixel counts."""
    return float(np.nanmean(class_iou(matrix)))


def zero_shot_summary(matrix: NDArray[np.int64], *, unseen: Collection[int]) -> dict[str, float]:
    """The figures of Tab. 4, as fractions.

    Args:
        matrix: summed over all images, `[1 + C, 1 + C]`.
        unseen: the labels, of 1 to C, of the classes left out of training.

    Returns:
        `miou_seen`, `miou_unseen`: mean IoU of the named classes of each kind; `miou_harmonic`: their harmonic mean; `miou`:
        of all C. The background has no name and counts in none of these: `iou_background`, and `miou_with_background`,
        `miou_seen_with_background` and `miou_harmonic_with_background` for the convention that counts it among the seen. A
        class that occurs nowhere counts as 0, as released; figures of no class at all are left out.

    Raises:
        ClipSegError: an unseen label that is none of the classes, or a matrix without counts.
    """
    classes = range(1, len(matrix))
    if not set(unseen) <= set(classes):
        raise ClipSegError(f"unseen labels {sorted(unseen)}; expected some of 1 to {len(matrix) - 1}")
    if not matrix.sum():
        raise ClipSegError("no pixels to measure; the split left none, or all are ignored")
    iou = np.nan_to_num(class_iou(matrix))
    seen = [label for label in classes if label not in unseen]
    figures = {
        "miou_seen": _mean(iou[seen]),
        "miou_unseen": _mean(iou[sorted(unseen)]),
        "miou": _mean(iou[1:]),
        "iou_background": float(iou[0]),
        "miou_with_background": _mean(iou),
        "miou_seen_with_background": _mean(iou[[0, *seen]]),
    }
    for kind in ("", "_with_background"):
        one, other = figures[f"miou_seen{kind}"], figures["miou_unseen"]
        figures[f"miou_harmonic{kind}"] = 2 * one * other / (one + other) if one + other != 0 else 0.0
    return {name: value for name, value in figures.items() if not np.isnan(value)}


def figures_as_scored(matrix: NDArray[np.int64], *, unseen: Collection[int]) -> dict[str, float]:
    """Return what the scorer of Tab. 4 prints, as released: it takes the seen classes for the unseen and vice versa.

    Args:
        matrix: as in `zero_shot_summary`.
        unseen: the labels that it asks for, which are others than training removed (`data.classes.SCORED_UNSEEN`).

    Returns:
        `miou_seen_as_scored`: mean IoU of the unseen; `miou_unseen_as_scored`: of all others, the background among them. A
        class that occurs nowhere counts as 0.
    """
    iou = np.nan_to_num(class_iou(matrix))
    seen = [label for label in range(len(matrix)) if label not in unseen]
    return {"miou_seen_as_scored": _mean(iou[sorted(unseen)]), "miou_unseen_as_scored": _mean(iou[seen])}


def _mean(iou: NDArray[np.float64]) -> float:
    return float(iou.mean()) if len(iou) else float("nan")
