"""PhraseCut's official layout on disk -> `Sample`s. One reader serves the real data set, the embedded one and a user's own.

Item i of epoch e is a pure function of (seed, e, i): no state is kept between items but a cache, so workers, processes and
resumed runs all see the same stream.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from clipseg.data.annotations import rasterise, read_images, read_tasks
from clipseg.data.layout import IMAGE_FOLDERS, IMAGES_FILE, KNOWN_BAD_IMAGES, locate_images, split_files
from clipseg.data.sample import Sample, Task
from clipseg.data.transforms import random_square_crop
from clipseg.errors import ClipSegError
from clipseg.image_io import read_image


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """Which tasks make up each item of an epoch: item i is `tasks[starts[i] : ends[i]]`."""

    tasks: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, item: int) -> NDArray[np.int64]:
        return self.tasks[self.starts[item] : self.ends[item]]


class PhraseCut(Dataset[Sample]):
    """Images with phrases and masks.

    For training an item is up to `phrases_per_image` tasks of one image under one random square crop, in a new order each
    epoch; otherwise it is one whole image with all its tasks, in the order of the file.

    Args:
        root: folder of `image_data_split.json`, `refer_<split>.json` and the photos, `<id>.jpg` in `images`, `VG_100K`
            or `VG_100K_2`.
        split: train, val, test, miniv or any other `refer_<split>.json` there is; or several joined by "_" ("val_miniv").
        training: shuffle and crop.
        seed: of order, crops and all later choices.
        phrases_per_image: tasks that share an image's crop and its pass through the backbone; the paper's is 1.
        skip_known_bad: leave out the 17 images of the real data set whose annotated size is wrong, as the authors do.
        allow_missing: leave out images that are not there, with a warning.
        allow_degenerate: take tasks without polygon and polygons of one or two points, as PhraseCut's evaluator does.

    Attributes:
        tasks: the packed annotations (`TaskTable`); `task_rows` are those in use.

    Raises:
        ClipSegError: the folder, a split, an annotation or photos are missing or malformed.

    Source: the paper, Sec. 4.1 (data) and the released settings (crop, the 17 images).
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        training: bool,
        seed: int = 0,
        phrases_per_image: int = 1,
        skip_known_bad: bool = True,
        allow_missing: bool = False,
        allow_degenerate: bool = False,
    ) -> None:
        if phrases_per_image < 1:
            raise ClipSegError(f"training.phrases_per_image={phrases_per_image}; expected at least 1 (the paper's)")
        if seed < 0:
            raise ClipSegError(f"seed={seed}; expected a whole number of at least 0")
        self.root = Path(root)
        self.split = split
        self.training = training
        self.seed = seed
        self.phrases_per_image = phrases_per_image
        files = split_files(self.root, split)
        images = read_images(self.root)
        self.tasks = read_tasks(files, image_ids=images.keys(), allow_degenerate=allow_degenerate)
        bad = np.fromiter(KNOWN_BAD_IMAGES if skip_known_bad else (), dtype=np.int64)
        usable = ~np.isin(self.tasks.image_ids, bad)
        found = locate_images(self.root, np.unique(self.tasks.image_ids[usable]).tolist())
        usable &= _present(
            self.tasks.image_ids, usable, found, allow_missing=allow_missing, where=f"{self.root}, split {split}"
        )
        self.task_rows = np.flatnonzero(usable)
        if not len(self.task_rows):
            raise ClipSegError(
                f"{self.root}: split {split} has no task with an image; choose another split or fetch the data again"
            )
        self._index_images()
        sizes = [(images[i].height, images[i].width) for i in self.image_ids.tolist()]
        self._sizes = np.array(sizes, dtype=np.int64)
        self._folders = np.array([IMAGE_FOLDERS.index(found[i]) for i in self.image_ids.tolist()], dtype=np.uint8)
        self._last_plan: tuple[int, EpochPlan] | None = None
        self._n_items = len(self.epoch_plan(0))

    def _index_images(self) -> None:
        """Number the images in the order they first appear in, and gather each one's tasks."""
        ids, first, inverse = np.unique(self.tasks.image_ids[self.task_rows], return_index=True, return_inverse=True)
        order = np.argsort(first)
        self.image_ids = ids[order]
        self._image_of_task = np.full(len(self.tasks), -1)
        self._image_of_task[self.task_rows] = np.argsort(order)[inverse]

    def __len__(self) -> int:
        """The number of items, the same in every epoch."""
        return self._n_items

    def epoch_plan(self, epoch: int) -> EpochPlan:
        """Which tasks make up each item of an epoch; the last plan asked for is kept."""
        if self._last_plan is None or self._last_plan[0] != epoch:
            plan = self._shuffled_plan(epoch) if self.training else self._group(self.task_rows, most=len(self.tasks))
            self._last_plan = (epoch, plan)
        return self._last_plan[1]

    def _shuffled_plan(self, epoch: int) -> EpochPlan:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        plan = self._group(rng.permutation(self.task_rows), most=self.phrases_per_image)
        order = rng.permutation(len(plan))
        return EpochPlan(plan.tasks, plan.starts[order], plan.ends[order])

    def _group(self, rows: NDArray[np.int64], *, most: int) -> EpochPlan:
        """Bring the tasks of each image together, keeping their order, and cut them into groups of at most `most`."""
        image_of_row = self._image_of_task[rows]
        by_image = np.argsort(image_of_row, kind="stable")
        counts = np.bincount(image_of_row, minlength=len(self.image_ids))
        place_in_image = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = np.flatnonzero(place_in_image % most == 0)
        return EpochPlan(rows[by_image], starts, np.append(starts[1:], len(rows)))

    def __getitem__(self, index: tuple[int, int] | int) -> Sample:
        """Read one item.

        Args:
            index: `(epoch, item)`, as `StreamSampler` yields; a bare item is one of epoch 0.

        Raises:
            ClipSegError: the photo is damaged, gone, or not of the annotated size.
        """
        epoch, item = index if isinstance(index, tuple) else (0, index)
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of {len(self)}")
        rows = self.epoch_plan(epoch)[item].tolist()
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, item)))
        number = int(self._image_of_task[rows[0]])
        image = self._read_image(number)
        height, width = image.shape[1:]
        masks = [rasterise(self.tasks.polygons(row), height, width) for row in rows]
        if self.training:
            top, left, side = random_square_crop(masks[0], rng)
            image = image[:, top : top + side, left : left + side].contiguous()
            masks = [np.ascontiguousarray(mask[top : top + side, left : left + side]) for mask in masks]
        seeds = rng.integers(2**63, size=len(rows)).tolist()
        return Sample(
            image_key=str(self.image_ids[number]),
            image=image,
            tasks=[
                Task(key=key, phrase=self.tasks.phrases[row], mask=torch.from_numpy(mask), group=key, seed=seed)
                for row, mask, seed in zip(rows, masks, seeds, strict=True)
                for key in [self.tasks.keys[row]]
            ],
        )

    def _read_image(self, number: int) -> torch.Tensor:
        path = self.root / IMAGE_FOLDERS[self._folders[number]] / f"{self.image_ids[number]}.jpg"
        image = read_image(path, exif=False)
        height, width = self._sizes[number].tolist()
        if tuple(image.shape[1:]) != (height, width):
            raise ClipSegError(
                f"{path}: {image.shape[2]}x{image.shape[1]} pixels, but {IMAGES_FILE} says {width}x{height}; fetch the photo "
                f"again or remove its tasks (`clipseg data check {self.root}` lists all such photos)"
            )
        return image


def _present(
    image_ids: NDArray[np.int64], usable: NDArray[np.bool_], found: dict[int, str], *, allow_missing: bool, where: str
) -> NDArray[np.bool_]:
    """bool `[T]`: the task's image is there. Raises for missing ones unless they may be left out."""
    present = np.isin(image_ids, np.fromiter(found, dtype=np.int64))
    missing = np.unique(image_ids[usable & ~present])
    if len(missing):
        total = len(np.unique(image_ids[usable]))
        first = ", ".join(map(str, missing[:10])) + " ..." * (len(missing) > 10)
        message = f"{where}: {len(missing):,} of {total:,} images are missing: {first}"
        if not allow_missing:
            raise ClipSegError(f"{message}; fetch them, or leave them out with data.allow_missing=true")
        warnings.warn(f"{message}; they are left out", stacklevel=3)
    return present
