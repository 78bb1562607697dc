"""Which reader a training config names: what it trains on, and what it is validated on meanwhile, and how."""

from pathlib import Path
from typing import TYPE_CHECKING

from clipseg.data.phrase_tasks import PhraseFilter, ReaderOptions, visual_evaluation
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import Reader
from clipseg.errors import ClipSegError
from clipseg.image_io import read_image
from clipseg.measure.metrics import curves
from clipseg.run.evaluation import Evaluation
from clipseg.run.settings import DataSettings, TrainConfig

if TYPE_CHECKING:
    from clipseg.run.log import RunLog

# Other readers than PhraseCut's are imported where a config names them.


def training_data(config: TrainConfig, root: Path) -> Reader:
    """The data of `data.format` in `root`, split `data.train_split`, cropped, shuffled and engineered as `data` says.

    Raises:
        ClipSegError: another layout, no such split, or malformed data.
    """
    data = config.data
    if not data.crop and data.format not in ("phrasecut", "folder"):
        raise ClipSegError(f"data.crop=false is there for data.format=phrasecut and folder only, not {data.format}")
    options = ReaderOptions(
        training=True,
        crop=data.crop,
        seed=config.seed,
        phrases_per_image=config.training.phrases_per_image,
        negatives=data.negatives,
        visual_support=data.visual_support,
        singletons=data.singletons,
        exclude=_excluded(data),
        fraction=data.fraction,
        augmentation=data,
    )
    if data.format == "coco20i":
        assert config.fold is not None  # the settings have checked this
        for name in ("singletons", "fraction", "flip", "colour", "scale"):
            if getattr(data, name) != getattr(DataSettings, name):
                raise ClipSegError(f"data.{name}={getattr(data, name)} means nothing to data.format=coco20i; leave it out")
        from clipseg.data.readers.coco import coco20i_training

        return coco20i_training(
            root,
            options,
            split=data.train_split,
            fold=config.fold,
            class_lists=data.class_lists,
            sound_negatives=config.protocol == "paper",
        )
    if data.format == "lvis":
        from clipseg.data.readers.lvis import lvis_training

        return lvis_training(root, options, split=data.train_split)
    if data.format == "folder":
        from clipseg.data.readers.folder import FolderData

        return FolderData(root, options, split=data.train_split)
    return PhraseCut(root, options, split=data.train_split, leniency=data)


def validation_data(config: TrainConfig, root: Path, split: str, *, visual: bool = False) -> Reader:
    """Whole images of a split of the same data, asked for by text; on COCO-20i one-shot, of the classes that are trained on.

    Args:
        config: names the data.
        root: where it lies.
        split: of it.
        visual: on PhraseCut, asked for by a sample of the phrase, as `config.protocol` says.

    Raises:
        ClipSegError: as in `training_data`.
    """
    data = config.data
    if data.format == "coco20i":
        assert config.fold is not None
        from clipseg.data.readers.coco import coco20i_validation

        return coco20i_validation(root, split=split, fold=config.fold, visual_support=data.visual_support)
    if data.format == "lvis":
        from clipseg.data.readers.lvis import lvis_names

        return lvis_names(root, split=split, exclude=_excluded(data))
    if data.format == "folder":
        from clipseg.data.readers.folder import FolderData

        return FolderData(root, split=split)
    options = visual_evaluation(seed=config.seed, protocol=config.protocol) if visual else ReaderOptions(seed=config.seed)
    return PhraseCut(root, options, split=split, leniency=data)


def _excluded(data: DataSettings) -> PhraseFilter | None:
    if data.exclude is None:
        return None
    from clipseg.data.class_words import phrase_filter

    return phrase_filter(data.exclude)


LOGGED = ("miou", "iou_fg", "iou_bin", "dice", "miou_best", "iou_fg_best", "iou_fg_best_threshold", "ap", "images_left_out")
PICTURES = 8


class Validation:
    """Called with the number of steps done, returns the figure that decides which checkpoint is the best: IoU_FG at its best t.

    Attributes:
        metrics: the figures of the last call.
    """

    def __init__(self, evaluation: Evaluation, *, images: int | None, log: "RunLog"):
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
