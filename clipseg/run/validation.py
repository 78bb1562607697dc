"""Validation during training: the evaluation of `evaluation.py` on a held-out split, and what of it goes into the log."""

from clipseg.image_io import read_image
from clipseg.measure.metrics import curves
from clipseg.run.evaluation import Evaluation
from clipseg.run.log import RunLog

LOGGED = ("miou", "iou_fg", "iou_bin", "dice", "miou_best", "iou_fg_best", "iou_fg_best_threshold", "ap", "images_left_out")
PICTURES = 8


class Validation:
    """Called with the number of steps done, returns the figure that decides which checkpoint is the best: IoU_FG at its best t.

    Attributes:
        metrics: the figures of the last call.
    """

    def __init__(self, evaluation: Evaluation, *, images: int | None, log: RunLog):
        self.evaluation = evaluation
        self.images = images
        self.log = log
        self.metrics: dict[str, float] = {}

    def __call__(self, step: int) -> float:
        results = self.evaluation.run(images=self.images)
        figures = results.metrics()
        self.metrics = {name: figures[name] for name in LOGGED if name in figures}
        self.log.validation(step, self.metrics, curve=curves(results.counts, results.group))
        if self.evaluation.processes.is_main:
            # The same samples every time, so that the pictures show them change.
            keys = results.key[:: max(len(results) // PICTURES, 1)][:PICTURES].tolist()
            shown = self.evaluation.render(keys, results)
            self.log.pictures(step, ((item.phrase, read_image(item.jpeg).permute(1, 2, 0).numpy()) for item in shown))
        return self.metrics["iou_fg_best"]
