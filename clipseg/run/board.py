"""An evaluation's figures for TensorBoard: what `report.html` shows, beside the curves of the training."""

from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from clipseg.measure.breakdown import by_class, by_size
from clipseg.measure.failures import failures
from clipseg.measure.metrics import THRESHOLDS, curves
from clipseg.measure.reliability import reliability
from clipseg.measure.results import Results
from clipseg.run.log import add_precision_recall


def log_results(folder: Path, results: Results, *, step: int) -> None:
    """Write TensorBoard's files of one evaluation into `folder`.

    Figures are at the training's last `step`; curves over thresholds and probabilities have these, in percent, for steps.
    """
    over_thresholds, calibration = curves(results.counts, results.group), reliability(results.counts)
    with SummaryWriter(str(folder)) as writer:
        for name, value in results.metrics().items():
            writer.add_scalar(name if "/" in name else f"eval/{name}", value, step)
        for part in by_size(results):
            writer.add_scalar(f"size/{part.name}", part.mean, step)
        for part in by_class(results):
            # A phrase may hold halves of surrogate pairs, which no tag can.
            writer.add_scalar(f"class/{part.name.encode(errors='replace').decode()}", part.mean, step)
        for kind, rows in failures(results).items():
            writer.add_scalar(f"failures/{kind}", len(rows) / len(results), step)
        for family in results.intensity.rejections() if results.intensity else []:
            if family.count.tested:
                writer.add_scalar(f"rejected/{family.name}", family.count.rejected / family.count.tested, step)
        writer.add_scalar("eval/calibration_error", calibration.error, step)
        add_precision_recall(writer, "eval/precision_recall", over_thresholds, step)
        for name in ("miou", "iou_fg", "iou_bin"):
            for threshold, value in zip(THRESHOLDS.tolist(), over_thresholds[name].tolist(), strict=True):
                writer.add_scalar(f"over_threshold/{name}", value, round(100 * threshold))
        for probability, frequency in zip(calibration.probability, calibration.frequency, strict=True):
            if not np.isnan(frequency):
                writer.add_scalar("reliability/in_the_truth", frequency, round(100 * probability))
