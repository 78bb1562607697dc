"""Phrases and masks on images -> `Sample`s: order, crops, negatives and supports, the same for every data set of phrases.

Item i of epoch e is a pure function of (seed, e, i): no state is kept between items but a cache, so workers, processes and
resumed runs all see the same stream. A reader says what its tasks are and how a photo and a mask are read.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from clipseg.data.augmentation import Augmentation
from clipseg.data.sample import Sample, Support, Task
from clipseg.data.sampling import EpochPlan, PhraseIndex, group_by_image, random_square_crop, shuffled_by_image, split_index
from clipseg.errors import ClipSegError, check_one_of

PhraseFilter = Callable[[Sequence[str]], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """How items are made of tasks; the defaults are those of evaluation.

    Attributes:
        training: shuffle, and take a random square crop; else an item is one whole image with all its tasks.
        crop: without it the whole image is squashed in training too, as in evaluation.
        seed: of order, crops and all later choices.
        phrases_per_image: tasks that share an image's crop and its pass through the backbone in training; the paper's is 1.
        negatives: how often a task gets another phrase and an empty mask; PhraseCut+ 0.2 (training).
        visual_support: give tasks a support, a sample of their phrase where it occurs more than once.
        singletons: how tasks are asked whose phrase occurs once, by "text" alone or by a "blank" prompt image; or "leave_out".
        self_support: a task may be its own support, as released.
        exclude: which phrases to leave out: phrases `[T]` -> bool `[T]`.
        fraction: of the images, those kept are drawn from the seed; a smaller fraction is part of a larger one.
        augmentation: how photos are changed in training.

    Raises:
        ClipSegError: a value that cannot be.
    """

    training: bool = False
    crop: bool = True
    seed: int = 0
    phrases_per_image: int = 1
    negatives: float = 0.0
    visual_support: bool = False
    singletons: str = "text"
    self_support: bool = True
    exclude: PhraseFilter | None = None
    fraction: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.phrases_per_image < 1:
            raise ClipSegError(f"training.phrases_per_image={self.phrases_per_image}; expected at least 1 (the paper's)")
        if self.seed < 0:
            raise ClipSegError(f"seed={self.seed}; expected a whole number of at least 0")
        check_one_of("data.singletons", self.singletons, ("text", "blank", "leave_out"))


EVALUATION = ReaderOptions()


def visual_evaluation(*, seed: int, protocol: str) -> ReaderOptions:
    """Tab. 9's visual columns: all tasks, a support perhaps the task itself; by protocol "paper" only what another shows."""
    if protocol == "paper":
        return ReaderOptions(seed=seed, visual_support=True, singletons="leave_out", self_support=False)
    return ReaderOptions(seed=seed, visual_support=True, singletons="blank")


class PhraseTasks(Dataset[Sample], ABC):
    """T tasks, each a phrase and a mask on one of I images.

    For training an item is up to `phrases_per_image` tasks of one image under one random square crop, in a new order each
    epoch; otherwise it is one whole image with all its tasks, in their order.

    Args:
        options: how items are made of the tasks.
        keys: T stable, unique names.
        phrases: T bare phrases.
        images: `[T]`, the id of each task's image, numbers or strings.
        task_rows: int64 `[R]`, the tasks in use, but for those of excluded phrases.
        unasked: bool `[T]`, those never asked, though occurrences of their phrase that may be a support; by default none.
        groups: T classes that mIoU averages over; by default each task is its own.
        where: how errors call the data, such as its folder and split.

    Attributes:
        image_ids: `[I]`, in the order the images first appear in.
        task_rows: the tasks that are asked.

    Raises:
        ClipSegError: no tasks, or too few for what the options ask for.

    Source: the paper, Sec. 4.1, and the released settings (crop, support, negatives).
    """

    def __init__(
        self,
        options: ReaderOptions,
        *,
        keys: Sequence[str],
        phrases: Sequence[str],
        images: NDArray[Any],
        task_rows: NDArray[np.int64],
        unasked: NDArray[np.bool_] | None = None,
        groups: Sequence[str] | None = None,
        where: str,
    ) -> None:
        if options.exclude is not None:
            task_rows = task_rows[~options.exclude(phrases)[task_rows]]
        if options.fraction < 1:
            task_rows = _of_some_images(task_rows, images, options)
        self.options = options
        self.task_rows = task_rows if unasked is None else task_rows[~unasked[task_rows]]
        if not len(self.task_rows):
            raise ClipSegError(f"{where} has no task with an image; choose another split or fetch the data again")
        self._keys = keys
        self._phrases = phrases
        self._groups = keys if groups is None else groups
        if options.negatives or options.visual_support:
            self._index_phrases(task_rows, where)
        self._index_images(images, task_rows)
        self._last_plan: tuple[int, EpochPlan] | None = None
        self._n_items = len(self.epoch_plan(0))

    def _index_phrases(self, rows: NDArray[np.int64], where: str) -> None:
        """Find the tasks by their phrase, `rows` being those in use."""
        self._index = PhraseIndex(self._phrases, rows)
        if self.options.visual_support and self.options.singletons == "leave_out":
            rows = rows[[len(self._index.rows(self._index.number(row))) > 1 for row in rows.tolist()]]
            self._index = PhraseIndex(self._phrases, rows)
            self.task_rows = self.task_rows[np.isin(self.task_rows, rows)]
            if not len(self.task_rows):
                raise ClipSegError(f"{where} has no phrase that occurs twice, and so no visual prompts")
        if self.options.negatives and len(self._index.phrases) < 2:
            raise ClipSegError(f"{where} has one phrase, and so no negatives; set data.negatives=0")

    def _index_images(self, images: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Number the images in the order they first appear in, those of the asked tasks before what supports alone show."""
        rows = np.concatenate([self.task_rows, np.setdiff1d(rows, self.task_rows)])
        ids, first, inverse = np.unique(images[rows], return_index=True, return_inverse=True)
        order = np.argsort(first)
        self._photos = ids[order]
        self.image_ids = self._photos[: np.count_nonzero(first < len(self.task_rows))]
        self._image_of_task = np.full(len(images), -1)
        self._image_of_task[rows] = np.argsort(order)[inverse]

    @property
    def asked_phrases(self) -> list[str]:
        """The phrases of the tasks that are asked, each once."""
        return list(dict.fromkeys(self._phrases[row] for row in self.task_rows.tolist()))

    def __len__(self) -> int:
        """The number of items, the same in every epoch."""
        return self._n_items

    def epoch_plan(self, epoch: int) -> EpochPlan:
        """Which tasks make up each item of an epoch; the last plan asked for is kept."""
        if self._last_plan is None or self._last_plan[0] != epoch:
            rows, images = self.task_rows, self._image_of_task
            if self.options.training:
                plan = shuffled_by_image(rows, images, most=self.options.phrases_per_image, seed=self.options.seed, epoch=epoch)
            else:
                plan = group_by_image(rows, images, most=len(rows))
            self._last_plan = (epoch, plan)
        return self._last_plan[1]

    def __getitem__(self, index: tuple[int, int] | int) -> Sample:
        """Read one item.

        Args:
            index: `(epoch, item)`, as `StreamSampler` yields; a bare item is one of epoch 0.

        Raises:
            ClipSegError: the photo or a mask is damaged, gone, or not of the annotated size.
        """
        epoch, item = split_index(index, len(self))
        rows = self.epoch_plan(epoch)[item].tolist()
        rng = np.random.default_rng(np.random.SeedSequence(self.options.seed, spawn_key=(epoch, item)))
        number = int(self._image_of_task[rows[0]])
        image = self._read_image(number)
        height, width = image.shape[1:]
        masks = [self._read_mask(row, height, width) for row in rows]
        if self.options.training:
            image, masks = self._changed(image, masks, rng)
        tasks = [self._task(row, torch.from_numpy(mask), rng) for row, mask in zip(rows, masks, strict=True)]
        return Sample(image_key=str(self.image_ids[number]), image=image, tasks=tasks)

    def _task(self, row: int, mask: torch.Tensor, rng: np.random.Generator) -> Task:
        """One task, and what PhraseCut+ makes of it: perhaps another phrase with nothing to find, perhaps a support sample."""
        key, phrase, support = self._keys[row], self._phrases[row], None
        if self.options.negatives or self.options.visual_support:
            number = self._index.number(row)
            if self.options.negatives and rng.random() < self.options.negatives:
                number = self._negative(row, rng)
                phrase, mask = str(self._index.phrases[number]), torch.zeros_like(mask)
            if self.options.visual_support:
                support = self._support(self._index.rows(number), row, rng)
        return Task(
            key=key,
            phrase=phrase,
            mask=mask,
            group=self._groups[row],
            seed=int(rng.integers(2**63)),
            support=support,
            blank=self.options.visual_support and support is None and self.options.singletons == "blank",
            **({} if self.options.training else self._evaluated(row, mask)),
        )

    def _support(self, candidates: NDArray[np.int64], row: int, rng: np.random.Generator) -> Support | None:
        """A sample of the phrase that `candidates` share, where there are several."""
        if len(candidates) < 2:
            return None
        if not self.options.self_support:
            candidates = candidates[candidates != row]
        chosen = int(rng.choice(candidates))
        image = self._read_image(int(self._image_of_task[chosen]))
        mask = self._read_mask(chosen, image.shape[1], image.shape[2])
        if self.options.training:
            image, (mask,) = self._changed(image, [mask], rng)
        return Support(image=image, mask=torch.from_numpy(mask))

    def _changed(
        self, image: torch.Tensor, masks: Sequence[NDArray[np.uint8]], rng: np.random.Generator
    ) -> tuple[torch.Tensor, list[NDArray[np.uint8]]]:
        """The image and its masks as training sees them: the square that `random_square_crop` draws for the first mask."""
        if self.options.crop:
            top, left, side = random_square_crop(masks[0], rng)
            rows, columns = slice(top, top + side), slice(left, left + side)
            image, masks = image[:, rows, columns], [mask[rows, columns] for mask in masks]
        image, masks = self.options.augmentation.changed(image, masks, rng)
        return image.contiguous(), [np.ascontiguousarray(mask) for mask in masks]

    def _negative(self, row: int, rng: np.random.Generator) -> int:
        """The number of a phrase that is not the task's, each distinct phrase as often (docs/paper.md, Sec. 2)."""
        return self._index.another(self._index.number(row), rng)

    def _evaluated(self, row: int, mask: torch.Tensor) -> dict[str, Any]:
        """The fields `subsets` and `official` of a task with this mask, which evaluation alone reads; by default neither."""
        return {}

    @abstractmethod
    def _read_image(self, number: int) -> torch.Tensor:
        """The photo `_photos[number]`, uint8 RGB `[3, H, W]`."""

    @abstractmethod
    def _read_mask(self, row: int, height: int, width: int) -> NDArray[np.uint8]:
        """The mask of a task, uint8 `[height, width]` of 0 and 1; the size is the photo's."""


def _of_some_images(task_rows: NDArray[np.int64], images: NDArray[Any], options: ReaderOptions) -> NDArray[np.int64]:
    """The tasks on a fraction of the images."""
    ids = np.unique(images[task_rows])
    order = np.random.default_rng((options.seed, 3)).permutation(len(ids))
    kept = ids[order[: max(round(options.fraction * len(ids)), 1)]]
    return task_rows[np.isin(images[task_rows], kept)]
