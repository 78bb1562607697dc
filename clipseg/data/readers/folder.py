"""A folder of the user's own -> `Sample`s, for training and evaluation, in whichever form its labels are kept.

The forms: `own/lines.py` (JSON Lines), `own/coco_json.py`, `own/pictures.py` (label maps, masks); phrases: `own/phrases.py`.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg.data.annotations import PackedStrings
from clipseg.data.layout import LAYOUTS, find_layouts, wrong_layout
from clipseg.data.phrase_tasks import EVALUATION, PhraseTasks, ReaderOptions
from clipseg.data.readers.own.coco_json import find_coco_json, read_coco_json
from clipseg.data.readers.own.lines import find_lines, read_lines
from clipseg.data.readers.own.phrases import read_phrases
from clipseg.data.readers.own.pictures import (
    LABELS,
    OPEN,
    PHOTOS,
    find_folder,
    find_label_maps,
    find_masks,
    is_picture,
    read_label_maps,
    read_masks,
)
from clipseg.data.readers.own.tasks import OwnTask, Problems, draw
from clipseg.data.sample import Sample, Task
from clipseg.errors import ClipSegError
from clipseg.image_io import read_image, read_labels


@dataclass(frozen=True)
class Form:
    """How labels are kept.

    Attributes:
        find: folder -> its splits, name -> file or folder; none where it is kept in another form.
        read: (folder, file or folder of a split, problems) -> its tasks.
    """

    find: Callable[[Path], dict[str, Path]]
    read: Callable[[Path, Path, Problems], list[OwnTask]]


# In the order in which a folder is asked for them: who lists masks as JSON Lines may have the folders of another form too.
FORMS: Mapping[str, Form] = {
    "JSON Lines": Form(find_lines, read_lines),
    "COCO JSON": Form(find_coco_json, read_coco_json),
    "label maps": Form(find_label_maps, read_label_maps),
    "masks": Form(find_masks, read_masks),
}


def find_format(root: Path) -> str:
    """Return the form, one of `FORMS`, that the labels of a folder are kept in.

    Raises:
        ClipSegError: no such folder, or none that can be told.
    """
    for name, form in FORMS.items() if root.is_dir() else ():
        if form.find(root):
            return name
    photos, labels = find_folder(root, PHOTOS), find_folder(root, LABELS)
    if root.is_dir() and not find_layouts(root):
        if labels is not None and photos is None:
            raise ClipSegError(f"data.root={root}: labels ({labels.name}) without images; expected {LAYOUTS['folder']}")
        if labels is None and (photos is not None or any(map(is_picture, root.iterdir()))):
            raise ClipSegError(f"data.root={root}: images without any label; expected {LAYOUTS['folder']}")
    raise wrong_layout(root, "folder")


def folder_splits(root: Path) -> dict[str, Path]:
    """Return the splits a folder holds: name -> the file or the folder of photos it is read from.

    Raises:
        ClipSegError: as in `find_format`.
    """
    return FORMS[find_format(root)].find(root)


def read_tasks(root: Path, path: Path, problems: Problems = None) -> list[OwnTask]:
    """Read the tasks of a split; `path` is that of `folder_splits`, arguments and errors are those of `read_lines`."""
    return FORMS[find_format(root)].read(root, path, problems)


class FolderData(PhraseTasks):
    """The tasks of a split of a folder; items as in `PhraseTasks`, so as PhraseCut's.

    A class that has several phrases in `phrases.yaml` is asked for by one of them, drawn, in training, and else by the first.

    Args:
        root: the folder.
        options: how items are made of the tasks.
        split: one of `folder_splits`.
        images: keep only the tasks on these photos, named by their paths in the folder; None: all.

    Raises:
        ClipSegError: the folder, the split or a file is missing, something is malformed, a class has no phrase, or a path
            leaves the folder.
    """

    def __init__(
        self,
        root: str | Path,
        options: ReaderOptions = EVALUATION,
        *,
        split: str = "train",
        images: Collection[str] | None = None,
    ) -> None:
        self.root = Path(root)
        splits = folder_splits(self.root)
        if split not in splits:
            raise ClipSegError(f"data.root={root}: split {split!r} unknown; expected one of {', '.join(splits)}")
        tasks = read_tasks(self.root, splits[split])
        if images is not None:
            tasks = [task for task in tasks if task.image in images]
        names = PackedStrings(task.name for task in tasks)
        self.phrases = read_phrases(self.root, dict.fromkeys(names))
        self._targets = PackedStrings(json.dumps(task.target) for task in tasks)
        self._where = PackedStrings(task.where for task in tasks)
        if (exclude := options.exclude) is not None:
            held_out = {name: bool(exclude(phrases).any()) for name, phrases in self.phrases.items()}
            options = replace(options, exclude=lambda names: np.array([held_out[name] for name in names], dtype=np.bool_))
        super().__init__(
            options,
            keys=PackedStrings(f"{split}/{task.number:06d}" for task in tasks),
            phrases=names,
            images=np.array([task.image for task in tasks], dtype=np.str_),
            task_rows=np.arange(len(tasks)),
            groups=names,
            where=f"{splits[split]}:",
        )

    def __getitem__(self, index: tuple[int, int] | int) -> Sample:
        """Read one item, as `PhraseTasks` does; in evaluation what a label map leaves open is not counted."""
        sample = super().__getitem__(index)
        item = index[1] if isinstance(index, tuple) else index
        target = {} if self.options.training else json.loads(self._targets[int(self.epoch_plan(0)[item][0])])
        if not target.get("open"):
            return sample
        return replace(sample, valid=torch.from_numpy(read_labels(self.root / target["labels"]) != OPEN).byte())

    def _task(self, row: int, mask: torch.Tensor, rng: np.random.Generator) -> Task:
        """One task; what was drawn so far as its phrase is its class, or another one as a negative."""
        task = super()._task(row, mask, rng)
        phrases = self.phrases[task.phrase]
        drawn = np.random.default_rng((task.seed, 2)).integers(len(phrases)) if self.options.training else 0
        return replace(task, phrase=phrases[drawn], synonyms=phrases)

    def _read_image(self, number: int) -> torch.Tensor:
        return read_image(self.root / str(self._photos[number]), exif=False)

    def _read_mask(self, row: int, height: int, width: int) -> NDArray[np.uint8]:
        return draw(json.loads(self._targets[row]), self.root, height, width, where=self._where[row])
