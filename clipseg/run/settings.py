"""Every setting, once: its name, type, default and what is impossible. The YAML files under `configs/` say what differs.

The entry points hand these dataclasses to Hydra as the schema, so an unknown key or a wrong type stops a run before it starts.
"""

import functools
import math
import os
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from clipseg.data.augmentation import Augmentation
from clipseg.data.classes import FOLDS
from clipseg.data.phrasecut import Leniency
from clipseg.errors import ClipSegError, check_at_least, check_one_of, check_probability
from clipseg.network.config import ModelConfig
from clipseg.network.cpu_kernels import PRECISIONS
from clipseg.network.losses import LossSettings
from clipseg.run.benchmarks import BENCHMARKS, FORMATS, PROTOCOLS, key_classes

# Required, and given by nobody yet: OmegaConf's own mark, so that the schema needs no import of it.
MISSING: Any = "???"


@dataclass
class LoaderSettings:
    """How items are read (`run/loading.py`)."""

    workers: int = 2  # processes that read ahead; 0: the main process reads, and nobody notices when a file system hangs
    worker_timeout: int = 300  # seconds without an answer after which workers are given up
    unreadable: str = "stop"  # stop: a photo that cannot be read ends the run; leave_out: it is named, counted and left out
    class_lists: str | None = None  # COCO-20i: a JSON file, class -> images to draw from; null: those of the annotations

    def __post_init__(self) -> None:
        check_at_least("data.workers", self.workers, 0)
        if self.workers > (most := 8 * (os.cpu_count() or 1) + 8):
            raise ClipSegError(f"data.workers={self.workers} must be at most {most} on this machine")
        check_at_least("data.worker_timeout", self.worker_timeout, 1)
        check_one_of("data.unreadable", self.unreadable, ("stop", "leave_out"))


@dataclass
class DataSettings(LoaderSettings, Leniency, Augmentation):
    """The data that are trained on (`run/training_data.py`)."""

    workers: int = 4
    root: str = MISSING  # a folder, or "mini": the synthetic data, in the layout of the format
    format: str = "phrasecut"  # phrasecut; folder: a user's own; coco20i: all but the classes of `fold`; lvis: all its classes
    train_split: str = "auto"  # auto: those of the format, see `run/benchmarks.py`
    val_split: str = "auto"
    exclude: str | None = None  # a rule of data/class_words.py: phrases that name held-out classes are left out of training
    crop: bool = True  # train on random square crops, as the paper; without, on whole squashed images
    negatives: float = 0.0  # how often a phrase is replaced by one with nothing to find; PhraseCut+ 0.2 (docs/paper.md)
    fraction: float = 1.0  # of the training images, the same for a seed: for curves over the size of the data
    visual_support: bool = False  # draw a visual prompt where the phrase occurs more than once, as PhraseCut+ does
    singletons: str = "text"  # with visual_support, phrases that occur once: asked by text, by a blank image, or leave_out

    def __post_init__(self) -> None:
        LoaderSettings.__post_init__(self)
        Augmentation.__post_init__(self)
        check_probability("data.fraction", self.fraction)
        check_one_of("data.format", self.format, tuple(FORMATS))
        check_probability("data.negatives", self.negatives)
        if self.exclude is not None and self.format == "coco20i":
            raise ClipSegError(f"data.exclude={self.exclude}: COCO-20i holds classes out by fold; leave data.exclude out")


@dataclass
class PromptSettings:
    """How a target is described (docs/paper.md, Sec. 2 and 3; `run/conditioning.py`)."""

    templates: Any = "plain"  # a named set (plain, fixed, shuffled, extended, imagenet), one template, or a list of templates
    ensemble: bool = False  # the mean embedding over all templates and a class's phrases, instead of one drawn for each task
    text_weight: list[float] = field(default_factory=lambda: [0.0, 0.5])  # range of w in w * text + (1 - w) * visual
    visual_prompt: str = "crop_blur_intensity10"  # a variant of prompts/visual.py or prompts/attention.py

    def __post_init__(self) -> None:
        if len(self.text_weight) != 2 or not 0 <= self.text_weight[0] <= self.text_weight[1] <= 1:
            raise ClipSegError(f"prompt.text_weight={list(self.text_weight)} must be a range within [0, 1], such as [0, 0.5]")


@dataclass
class TrainingSettings:
    """The optimisation (paper Sec. 4; docs/paper.md, Sec. 2)."""

    init: str | None = None  # weights that `clipseg.load` takes, from which the decoder starts; they decide all of `model`
    steps: int = 20000
    batch_size: int = 64  # phrases a step, over all processes
    phrases_per_image: int = 1
    lr: float = 1e-3
    final_lr: float = 1e-4
    weight_decay: float = 0.01
    loss: LossSettings = field(default_factory=LossSettings)
    compile: bool = False  # torch.compile of the backbone's blocks and the decoder: a minute at the start
    feature_cache: str | None = None  # on a CPU, for views that come again: a folder for their features; auto: the user's cache
    amp: str = "auto"  # auto (bf16 or fp16 on CUDA, off on the CPU), off, bf16 (on the CPU the frozen part alone), fp16
    log_every: int = 10
    validate_every: int = 1000
    validation_images: int | None = None  # the first n images of the split; null: all
    patience: int | None = None  # stop after so many validations without a better one, and keep the weights of the best
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "phrases_per_image", "log_every", "validate_every", "checkpoint_every"):
            check_at_least(f"training.{key}", getattr(self, key), 1)
        if self.batch_size % self.phrases_per_image:
            raise ClipSegError(
                f"training.batch_size={self.batch_size} is no multiple of training.phrases_per_image={self.phrases_per_image}"
            )
        for key in ("validation_images", "patience"):
            if getattr(self, key) is not None:
                check_at_least(f"training.{key}", getattr(self, key), 1)
        if not 0 <= self.final_lr <= self.lr < math.inf:
            raise ClipSegError(f"training.final_lr={self.final_lr} must lie between 0 and training.lr={self.lr}")
        if not 0 <= self.weight_decay < math.inf:
            raise ClipSegError(f"training.weight_decay={self.weight_decay} must be at least 0")
        check_one_of("training.amp", self.amp, ("auto", "off", "bf16", "fp16"))


@dataclass
class TrainConfig:
    """All of `train.py`."""

    experiment: str = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataSettings = field(default_factory=DataSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluate_splits: list[str] = field(default_factory=list)  # evaluated after training, each into OUT/eval/<split>
    evaluate_visual: list[str] = field(default_factory=list)  # splits, by visual prompts alone, into OUT/eval/<split>_visual
    intensity_tests: bool = False  # test there how gray values change at the masks' boundaries (`measure/intensity.py`)
    fold: int | None = None  # of Pascal-5i or COCO-20i, whose classes are held out
    protocol: str = "released"  # one of PROTOCOLS
    threshold: float = 0.3
    seed: int = 0
    deterministic: bool = False  # of several ways to compute the same take the one that repeats (`run/training.py`)
    device: str = "auto"
    resume: str | None = None
    debug: str | None = None  # profile: 25 steps, with a trace and the shares of time in OUT/profile, and no more
    out: str = MISSING
    report: str | None = None  # after all jobs of a sweep on the mini data: a folder for its page (`paper/sweep.py`)

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)
        check_one_of("protocol", self.protocol, PROTOCOLS)
        _seed(self.seed)
        check_one_of("debug", self.debug or "profile", ("profile",))
        _fold(self.fold)
        if self.report is not None and self.data.root != "mini":
            raise ClipSegError(f"report={self.report}: the page is about the mini data, not {self.data.root}; leave it out")
        if self.evaluate_visual and self.data.format != "phrasecut":
            raise ClipSegError(f"evaluate_visual is there for data.format=phrasecut only, not {self.data.format}; leave it out")
        if self.model.image_tower is not None and self.model.image_prompts is None:
            self.model.image_prompts = "image_tower" if self.protocol == "released" else "clip"
        _check_feature_cache(self)
        usual = FORMATS[self.data.format]
        _check_class_lists(self.data, usual.layout)
        if self.data.train_split == "auto":
            self.data.train_split = usual.train_split
        if self.data.val_split == "auto":
            # The synthetic PhraseCut has no miniv: all of its val is small enough.
            synthetic = self.data.root == "mini" and self.data.format == "phrasecut"
            self.data.val_split = "val" if synthetic else usual.val_split
        by_rule = str(self.data.exclude).startswith("pascal5i_fold")
        if self.data.format == "coco20i" and self.fold is None:
            raise ClipSegError("data.format=coco20i needs the fold that is held out; add fold=0")
        if self.fold is not None and not (by_rule or self.data.format == "coco20i"):
            raise ClipSegError(f"fold={self.fold}: experiment {self.experiment} has no folds; leave it out")
        if by_rule and self.data.exclude != f"pascal5i_fold{self.fold}":
            raise ClipSegError(f"data.exclude={self.data.exclude} does not fit fold={self.fold}; set fold alone")


@dataclass
class EvaluationData(LoaderSettings, Leniency):
    """Where the benchmark's data lies."""

    root: str | None = None  # a folder, or "mini", synthetic in the benchmark's layout; null: what the model was trained on


@dataclass
class MaskKeys:
    """The benchmarks whose tasks are binary masks.

    Attributes:
        save_predictions: a folder for one black-and-white PNG a task, at the image's own size.
        intensity_tests: test how gray values change at the masks' boundaries (`measure/intensity.py`).
    """

    save_predictions: str | None = None
    intensity_tests: bool = False

    def check(self, benchmark: str) -> None:
        """Take all values."""


@dataclass
class FoldKeys:
    """The benchmarks on classes that were held out by the fold 0 to 3 of Pascal-5i or COCO-20i."""

    fold: int | None = None

    def check(self, benchmark: str) -> None:
        """Raise `ClipSegError` where there is no such fold."""
        if self.fold is None:
            raise ClipSegError(f"benchmark={benchmark} needs fold; add fold=0 to the command")
        _fold(self.fold)


@dataclass
class EpisodeKeys:
    """The few-shot benchmarks.

    Attributes:
        episodes: a file of episodes to repeat; null: drawn from the seed. Either way they are written to OUT/episodes.json.
    """

    episodes: str | None = None

    def check(self, benchmark: str) -> None:
        """Take all values."""


@dataclass
class EvaluateConfig:
    """The keys that every benchmark of `evaluate.py` takes."""

    checkpoint: str = MISSING
    benchmark: str = "phrasecut"
    split: str = "auto"  # auto: the one of the benchmark, see `run/benchmarks.py`
    data: EvaluationData = field(default_factory=EvaluationData)
    prompt: PromptSettings = field(default_factory=lambda: PromptSettings(templates="auto", text_weight=[0.0, 0.0]))
    protocol: str = "released"  # one of PROTOCOLS
    threshold: float = 0.3
    seed: int = 0  # of the episodes, of the probe's split, and of the random samples shown in the report
    device: str = "auto"
    calibration: bool = True  # of a fine-tuned model: its temperatures, and where no threshold is named, its thresholds
    precision: str = "float32"  # or bf16: the frozen part's products, twice as fast where the processor has it
    out: str = MISSING
    overwrite: bool = False  # write into a folder that holds something else

    def __post_init__(self) -> None:
        check_probability("threshold", self.threshold)
        check_one_of("protocol", self.protocol, PROTOCOLS)
        check_one_of("precision", self.precision, tuple(PRECISIONS))
        check_one_of("benchmark", self.benchmark, tuple(BENCHMARKS))
        _seed(self.seed)
        own = key_classes([self.benchmark])
        known = {key.name for part in (EvaluateConfig, *own) for key in fields(part)}
        for key in fields(self):
            if key.name not in known and getattr(self, key.name) != key.default:
                raise ClipSegError(
                    f"{key.name}={getattr(self, key.name)} means nothing to benchmark={self.benchmark}; leave it out"
                )
        _check_class_lists(self.data, BENCHMARKS[self.benchmark].layout)
        for part in own:
            part.check(self, self.benchmark)
        benchmark = BENCHMARKS[self.benchmark]
        if self.split == "auto":
            self.split = benchmark.split
        if self.prompt.templates == "auto":
            self.prompt.templates = benchmark.templates


@functools.cache
def evaluate_schema() -> type[EvaluateConfig]:
    """All of `evaluate.py`: `EvaluateConfig` with the keys of every benchmark, of which one's own may be set."""
    return make_dataclass("EvaluateSchema", [], bases=(*key_classes(), EvaluateConfig))


def _check_class_lists(data: LoaderSettings, layout: str) -> None:
    if data.class_lists is not None and layout != "coco":
        raise ClipSegError(f"data.class_lists={data.class_lists}: only COCO-20i draws from lists of images; leave it out")


def _check_feature_cache(config: TrainConfig) -> None:
    """Raise `ClipSegError` where features would be kept of views that never come again; there "auto" becomes null."""
    data, asked = config.data, config.training.feature_cache
    square = data.root == "mini" and data.format == "phrasecut"  # a crop of which is all of it
    unchanging = (square or not data.crop) and data.flip == data.colour == 0 and data.scale == 1
    if unchanging or asked is None:
        return
    config.training.feature_cache = None
    if asked != "auto":
        raise ClipSegError(
            f"training.feature_cache={asked} keeps what each view gives, but none comes again: add data.crop=false, and leave "
            "data.flip, data.colour and data.scale out"
        )


def _seed(value: int) -> None:
    # Steps and processes get seeds of their own, many times as large, of which 64 bits must be enough.
    if not 0 <= value < 2**28:
        raise ClipSegError(f"seed={value} must lie between 0 and {2**28 - 1}")


def _fold(value: int | None) -> None:
    if value is not None and value not in range(FOLDS):
        raise ClipSegError(f"fold={value} does not exist; expected one of 0, 1, 2, 3")
