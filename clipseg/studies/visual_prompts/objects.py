"""Objects among others: an image, the mask of one object in it, and the names of all that is there.

The study of visual prompts asks about them (Tab. 2). A source is a sequence of images, each with its objects; this one
reads any data in PhraseCut's layout, `lvis_pairs.py` the authors' choice of LVIS.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from clipseg.data.annotations import is_text
from clipseg.data.json_entries import iterate_entries
from clipseg.data.layout import split_files
from clipseg.data.phrasecut import PhraseCut
from clipseg.errors import ClipSegError

LEAST_NAMES = 3  # the paper leaves out images with fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedObject:
    """One object and its surroundings.

    Attributes:
        key: unique, and the same in every run.
        image_key: name of the image.
        image: uint8 RGB `[3, H, W]`.
        mask: uint8 `[H, W]`, 1 on the object; not empty.
        name: the object's.
        names: of all objects in the image, its own among them, each once.
    """

    key: str
    image_key: str
    image: Tensor
    mask: Tensor
    name: str
    names: tuple[str, ...]


class ObjectSource(Protocol):
    """A data set of named objects: image i and all of its objects that are asked about."""

    def __len__(self) -> int: ...
    def __getitem__(self, item: int) -> list[NamedObject]: ...


class PhraseCutObjects:
    """The name tasks of a data set in PhraseCut's layout, on images whose tasks name at least three kinds of things.

    A name is `phrase_structure`'s; the object of a task of the type "name" is everything in the image that is called so. Tasks
    with attributes or relations add to the names of their image, but are not asked about.

    Args:
        data: one split, made with `training=False`.

    Raises:
        ClipSegError: an entry without a usable `phrase_structure`, or no image has as many names.
    """

    def __init__(self, data: PhraseCut):
        self._data = data
        self._name_of_key, self._names = _read_names(split_files(data.root, data.split))
        asked = {int(image_id) for image_id, names in self._names.items() if len(names) >= LEAST_NAMES}
        self._items = [item for item, image_id in enumerate(data.image_ids.tolist()) if image_id in asked]
        if not self._items:
            raise ClipSegError(
                f"{data.root}: split {data.split} has no image with at least {LEAST_NAMES} names; choose another split"
            )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: int) -> list[NamedObject]:
        """The objects of one image; none where all of its tasks are of other types."""
        image_id = int(self._data.image_ids[self._items[item]])
        sample = self._data[self._items[item]]
        return [
            NamedObject(
                key=task.key,
                image_key=sample.image_key,
                image=sample.image,
                mask=task.mask,
                name=self._name_of_key[task.key],
                names=tuple(sorted(self._names[image_id])),
            )
            for task in sample.tasks
            # A polygon outside the image leaves nothing to show.
            if task.key in self._name_of_key and task.mask.any()
        ]


def _read_names(files: dict[str, Path]) -> tuple[dict[str, str], dict[int, set[str]]]:
    """The name of each name task by its key, and the names in each image."""
    name_of_key: dict[str, str] = {}
    names: dict[int, set[str]] = {}
    for split, path in files.items():
        for number, entry in enumerate(iterate_entries(path)):
            structure = entry.get("phrase_structure")
            name = structure.get("name") if isinstance(structure, dict) else None
            if not is_text(name):
                raise ClipSegError(
                    f"{path}: entry {number}: no phrase_structure with a name, as the study of visual prompts needs"
                )
            if not name.strip():
                continue
            names.setdefault(entry["image_id"], set()).add(name)
            if structure.get("type") == "name":
                name_of_key[f"{split}/{entry['task_id']}"] = name
    return name_of_key, names
