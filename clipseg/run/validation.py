"""Validation during training: the evaluation of `evaluation.py` on a held-out split, and what of it goes into the log."""

from collections.abc import Mapping
from typing import Any

from clipseg.data.phrasecut import PhraseCut
from clipseg.image_io import read_image
from clipseg.measure.metrics import curves
from clipseg.network.model import CLIPSeg
from clipseg.run.distributed import Processes
from clipseg.run.evaluation import evaluate, render
from clipseg.run.log import RunLog
from clipseg.run.settings import TrainConfig

LOGGED = ("miou", "iou_fg", "iou_bin", "dice", "miou_best", "iou_fg_best", "iou_fg_best_threshold", "ap")
PICTURES = 8


class Validation:
    """Called with the model and the number of steps done, returns the figure that decides which checkpoint is the best:
    IoU_FG at its best t.

    Attributes:
        metrics: the figures of the last call.
    """

    def __init__(
        self, data: PhraseCut, *, config: TrainConfig, processes: Processes, provenance: Mapping[str, Any], log: RunLog
    ):
        self.data = data
        self.config = config
        self.processes = processes
        self.provenance = provenance
        self.log = log
        self.metrics: dict[str, float] = {}

    def __call__(self, model: CLIPSeg, step: int) -> float:
        results = evaluate(
            model,
            self.data,
            threshold=self.config.threshold,
            processes=self.processes,
            workers=self.config.data.workers,
            provenance=self.provenance,
            images=self.config.training.validation_images,
        )
        figures = results.metrics()
        self.metrics = {name: figures[name] for name in LOGGED}
        self.log.validation(step, self.metrics, curve=curves(results.counts, results.group))
        if self.processes.is_main:
            # The same samples every time, so that the pictures show them change.
            shown = render(model, self.data, results.key[:: max(len(results) // PICTURES, 1)][:PICTURES].tolist(), results)
            self.log.pictures(step, ((item.phrase, read_image(item.jpeg).permute(1, 2, 0).numpy()) for _, item in shown))
        return self.metrics["iou_fg_best"]
