"""Numbers about masks: integer counts for 49 thresholds a sample, and from them IoU, Dice and average precision.

Probability maps and masks come in, counts leave; every figure is then a ratio of sums of counts. Counts are integers, so that
shards merge exactly. Nothing here knows of files, models or data sets. Source: the paper's Sec. 5 (metrics).

Two definitions of every ratio, named in every output:

* `plain`: as written in the paper. Where truth and prediction are both empty, IoU and Dice are 1.
* `released`: 1 is added to every denominator (IoU, Dice, precision, recall) and AP is integrated as in 2022
  (`average_precision.py`), as in the authors' code, so that figures compare to the last digit. Where truth and prediction are
  both empty, IoU and Dice are 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg.errors import ClipSegError
from clipseg.measure.average_precision import Definition, average_precision

if TYPE_CHECKING:  # the reports are made from counts alone, without torch
    from torch import Tensor

DEFINITIONS: tuple[Definition, ...] = ("plain", "released")

_STEPS = 50
THRESHOLDS: NDArray[np.float32] = (np.arange(1, _STEPS) / _STEPS).astype(np.float32)  # 0.02, 0.04 … 0.98
# The threshold of index k stands between bucket k - 1 and bucket k; the ends are out of reach of any probability.
_EDGES = np.concatenate([[-1], THRESHOLDS, [2]]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class SampleCounts:
    """Pixels counted per sample and threshold; all int64, ignored pixels left out.

    Attributes:
        tp: `[N, 49]`, pixels of the truth above the threshold.
        fp: `[N, 49]`, pixels outside the truth above the threshold.
        positives: `[N]`, pixels of the truth.
        pixels: `[N]`, pixels counted.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    positives: NDArray[np.int64]
    pixels: NDArray[np.int64]

    @property
    def columns(self) -> tuple[NDArray[np.int64], ...]:
        """`tp, fp, positives, pixels`."""
        return self.tp, self.fp, self.positives, self.pixels

    def __len__(self) -> int:
        return len(self.positives)

    @property
    def fn(self) -> NDArray[np.int64]:
        """`[N, 49]`, pixels of the truth at or below the threshold."""
        return self.positives[:, None] - self.tp

    @property
    def tn(self) -> NDArray[np.int64]:
        """`[N, 49]`, pixels outside the truth at or below the threshold."""
        return (self.pixels - self.positives)[:, None] - self.fp

    @staticmethod
    def concatenate(parts: Iterable["SampleCounts"]) -> "SampleCounts":
        """The samples of all parts, one after the other.

        Raises:
            ClipSegError: there are no parts.
        """
        columns = list(zip(*(part.columns for part in parts), strict=True))
        if not columns:
            raise ClipSegError("no samples to measure; the split or the filter left none")
        return SampleCounts(*(np.concatenate(column) for column in columns))

    def cut_at(self, thresholds: NDArray[np.float64]) -> "SampleCounts":
        """Each sample at the one of the 49 that is nearest to a threshold of its own, `[N]`; all columns are alike."""
        rows, nearest = np.arange(len(self)), np.abs(THRESHOLDS - thresholds[:, None]).argmin(axis=1)
        tp, fp = (np.repeat(column[rows, nearest][:, None], len(THRESHOLDS), axis=1) for column in (self.tp, self.fp))
        return SampleCounts(tp, fp, self.positives, self.pixels)

    def grouped(self, groups: Sequence[Any] | NDArray[Any]) -> "SampleCounts":
        """Counts summed per group, in sorted order of the group labels; `groups` has one label a sample."""
        assert len(groups) == len(self), (len(groups), len(self))
        _, group_index = np.unique(np.asarray(groups), return_inverse=True)
        order = np.argsort(group_index, kind="stable")
        starts = np.flatnonzero(np.diff(group_index[order], prepend=-1))
        return SampleCounts(*(np.add.reduceat(column[order], starts, axis=0) for column in self.columns))

    def pooled(self) -> "SampleCounts":
        """Counts summed over all samples (N = 1), in constant memory: what a validation during training keeps."""
        return SampleCounts(*(column.sum(axis=0, keepdims=True) for column in self.columns))


def count(
    probabilities: "NDArray[Any] | Tensor", masks: "NDArray[Any] | Tensor", valid: "NDArray[Any] | Tensor | None" = None
) -> SampleCounts:
    """Count true and false positives at all thresholds; a pixel is foreground where its probability > t, both float32.

    Each pixel is put into its bucket between two thresholds once; the counts are sums of buckets (0.4 ms a 352×352 sample).

    Args:
        probabilities: `[N, H, W]`, in [0, 1]; float32 (others are converted).
        masks: `[N, H, W]`, bool or uint8 of 0 and 1.
        valid: `[N, H, W]`, bool or uint8; pixels of 0 are ignored.

    Raises:
        ClipSegError: a probability outside [0, 1] or NaN; a mask with other values than 0 and 1.
    """
    probabilities = _array(probabilities).astype(np.float32, copy=False)
    masks = _array(masks)
    assert probabilities.ndim == 3, probabilities.shape
    assert probabilities.shape == masks.shape, (probabilities.shape, masks.shape)
    if probabilities.size == 0:
        raise ClipSegError(f"probabilities of shape {probabilities.shape}: no pixels to count")
    if masks.dtype not in (np.bool_, np.uint8) or masks.max() > 1:
        raise ClipSegError(f"mask of {masks.dtype} with largest value {masks.max()}; expected bool, or uint8 of 0 and 1")
    kept = [None] * len(masks) if valid is None else _array(valid).astype(bool, copy=False)
    histograms = np.stack([_histogram(*sample) for sample in zip(probabilities, masks, kept, strict=True)])
    # Above the threshold of index k lie the buckets k + 1 … 49.
    above = histograms[:, ::-1].cumsum(axis=1)[:, ::-1]
    positives, negatives = above[:, 0, 1], above[:, 0, 0]
    return SampleCounts(tp=above[:, 1:, 1], fp=above[:, 1:, 0], positives=positives, pixels=positives + negatives)


def _array(values: "NDArray[Any] | Tensor") -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()


def _histogram(probability: NDArray[np.float32], mask: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """`[50, 2]`: pixels by the number of thresholds below their probability, and by their mask."""
    if not (probability.min() >= 0 and probability.max() <= 1):  # NaN fails both
        raise ClipSegError(
            f"probabilities from {probability.min()} to {probability.max()}; expected [0, 1] (apply a sigmoid to logits)"
        )
    # The product rounds, so that a value at a threshold may land in the bucket above; one comparison puts it right.
    bucket = (probability * np.float32(_STEPS)).astype(np.uint8)
    bucket -= probability <= _EDGES.take(bucket)
    bucket *= 2
    bucket += mask
    pixels = bucket.ravel() if valid is None else bucket[valid]
    return np.bincount(pixels, minlength=2 * _STEPS).reshape(_STEPS, 2)


def threshold_index(threshold: float) -> int:
    """The place of `threshold` in `THRESHOLDS`.

    Raises:
        ClipSegError: it is none of the 49.
    """
    index = round(threshold * _STEPS) - 1 if np.isfinite(threshold) else -1
    if not 0 <= index < len(THRESHOLDS) or abs(threshold * _STEPS - (index + 1)) > 1e-6:
        raise ClipSegError(f"threshold {threshold}: counted are 0.02, 0.04 … 0.98; choose one of these")
    return index


def sample_iou(counts: SampleCounts, threshold: float, *, definition: Definition = "plain") -> NDArray[np.float64]:
    """IoU of each sample at one threshold, float64 `[N]`."""
    return _iou_and_dice(counts, definition)[0][:, threshold_index(threshold)]


def _iou_and_dice(counts: SampleCounts, definition: Definition) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    union = counts.positives[:, None] + counts.fp
    return _ratio(counts.tp, union, definition), _ratio(2 * counts.tp, union + counts.tp, definition)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64], definition: Definition) -> NDArray[np.float64]:
    if definition == "released":
        return np.divide(part, whole + 1, dtype=np.float64)
    return np.divide(part + (whole == 0), np.maximum(whole, 1), dtype=np.float64)  # nothing of nothing is 1


def curves(
    counts: SampleCounts, groups: Sequence[Any] | NDArray[Any], *, definition: Definition = "plain"
) -> dict[str, NDArray[np.float64]]:
    """Every measure over the 49 thresholds, float64 `[49]` each.

    Args:
        counts: of N samples.
        groups: one label a sample: its class; on PhraseCut each task is a class of its own.
        definition: of the ratios, see the module.

    Returns:
        `miou`, `mdice`: mean over groups of the ratio with counts summed per group. `iou_fg`, `dice`: the ratio with counts
        summed over all samples. `iou_bin`: mean of foreground and background IoU of the summed counts. `precision`, `recall`:
        of the summed counts; NaN where nothing is predicted.

    Raises:
        ClipSegError: there are no samples.
    """
    if len(counts) == 0:
        raise ClipSegError("no samples to measure; the split or the filter left none")
    group_iou, group_dice = _iou_and_dice(counts.grouped(groups), definition)
    of_groups = {"miou": group_iou.mean(axis=0), "mdice": group_dice.mean(axis=0)}
    return of_groups | {name: values[0] for name, values in pooled_curves(counts.pooled(), definition=definition).items()}


def pooled_curves(totals: SampleCounts, *, definition: Definition = "plain") -> dict[str, NDArray[np.float64]]:
    """The measures of `curves` that need no groups, float64 `[N, 49]` each: `totals` has a row for each of N sums of counts."""
    foreground, dice = _iou_and_dice(totals, definition)
    background = _ratio(totals.tn, totals.tn + totals.fp + totals.fn, definition)
    predicted = totals.tp + totals.fp
    # Without any positive pixel recall is 0 of 0; 0 by convention, as in the released definition.
    truth = np.maximum(totals.positives + (definition == "released"), 1)[:, None]
    return {
        "iou_fg": foreground,
        "dice": dice,
        "iou_bin": (foreground + background) / 2,
        "precision": np.where(predicted > 0, _ratio(totals.tp, predicted, definition), np.nan),
        "recall": np.where(predicted > 0, totals.tp / truth, np.nan),
    }


def summarise(
    counts: SampleCounts, groups: Sequence[Any] | NDArray[Any], *, definition: Definition, threshold: float
) -> dict[str, float]:
    """The figures of the paper's tables, as fractions.

    Args:
        counts: of N samples.
        groups: one label a sample, see `curves`.
        definition: of the ratios, see the module.
        threshold: one of the 49.

    Returns:
        `miou`, `mdice`, `iou_fg`, `dice`, `iou_bin` at the threshold; each with `_best`, its largest value over all
        thresholds, and `_best_threshold`, the lowest threshold that reaches it; and `ap`.

    Raises:
        ClipSegError: there are no samples, or the threshold is none of the 49.
    """
    index = threshold_index(threshold)
    over_thresholds = curves(counts, groups, definition=definition)
    precision, recall = over_thresholds.pop("precision"), over_thresholds.pop("recall")
    figures = {}
    for name, values in over_thresholds.items():
        best = int(values.argmax())
        figures[name] = float(values[index])
        figures[f"{name}_best"] = float(values[best])
        figures[f"{name}_best_threshold"] = (best + 1) / _STEPS
    figures["ap"] = average_precision(precision, recall, definition=definition)
    return figures


def official_counts(
    probability: "NDArray[Any] | Tensor",
    mask: "NDArray[Any] | Tensor",
    threshold: float,
    *,
    valid: "NDArray[Any] | Tensor | None" = None,
) -> tuple[int, int]:
    """Pixels of intersection and union of one sample, `[H, W]` at the image's original size, for PhraseCut's own figures.

    Where `valid` is 0 nothing is counted.
    """
    truth = _array(mask).astype(bool)
    prediction = _array(probability).astype(np.float32, copy=False) > np.float32(threshold)
    assert truth.shape == prediction.shape, (truth.shape, prediction.shape)
    if valid is not None:
        kept = _array(valid).astype(bool)
        truth, prediction = truth & kept, prediction & kept
    return int(np.count_nonzero(truth & prediction)), int(np.count_nonzero(truth | prediction))


def official_summary(intersections: NDArray[np.int64], unions: NDArray[np.int64]) -> dict[str, float]:
    """The figures of PhraseCut's own evaluator, from intersections and unions `[N]` at the original size.

    Returns:
        `mean_iou_official`: mean IoU over phrases; `cum_iou_official`: sum of intersections over sum of unions;
        `pr@0.3`, `pr@0.5`, `pr@0.7`, `pr@0.9`: share of phrases whose IoU is above (not equal to) the value. Where truth and
        prediction are both empty the IoU is 1.

    Raises:
        ClipSegError: there are no samples.
    """
    if len(unions) == 0:
        raise ClipSegError("no samples to measure; the split or the filter left none")
    iou = _ratio(intersections, unions, "plain")
    figures = {"mean_iou_official": float(iou.mean())}
    figures["cum_iou_official"] = float(_ratio(intersections.sum(), unions.sum(), "plain"))
    return figures | {f"pr@{level}": float((iou > level).mean()) for level in (0.3, 0.5, 0.7, 0.9)}
