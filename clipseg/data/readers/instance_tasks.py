"""Training on annotated objects: each image and each class it shows is a task, its phrase the class's name."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipseg.data.annotations import PackedStrings
from clipseg.data.phrase_tasks import PhraseTasks, ReaderOptions
from clipseg.data.readers.instances import InstanceSource


class InstanceTasks(PhraseTasks):
    """The training form of LVIS; items as in `PhraseTasks`.

    Args:
        source: photos and masks.
        options: how items are made of the tasks; a negative is a class that its image does not show, with an empty mask.
        split: the first part of every key.

    Raises:
        ClipSegError: a setting that cannot be, or no tasks.
    """

    def __init__(self, source: InstanceSource, options: ReaderOptions, *, split: str) -> None:
        self._source = source
        images_by_class = source.images_by_class()
        image_ids = [image_id for images in images_by_class.values() for image_id in images]
        names = [name for name, images in images_by_class.items() for _ in images]
        self._names = PackedStrings(names)
        pairs = zip(image_ids, names, strict=True)
        super().__init__(
            options,
            keys=PackedStrings(f"{split}/{image_id}__{name.replace(' ', '_')}" for image_id, name in pairs),
            phrases=self._names,
            images=np.array(image_ids, dtype=np.int64),
            task_rows=np.arange(len(names)),
            groups=self._names,
            where=f"{source.table.path}: the classes of training",
        )
        self._rows_of_image = np.argsort(self._image_of_task, kind="stable")
        self._starts = np.searchsorted(self._image_of_task[self._rows_of_image], np.arange(len(self.image_ids) + 1))

    def _negative(self, row: int, rng: np.random.Generator) -> int:
        """A class that the image does not show, each as likely; its own in an image that shows all of them."""
        image = self._image_of_task[row]
        rows = self._rows_of_image[self._starts[image] : self._starts[image + 1]].tolist()
        shown = [self._index.number(other) for other in rows]
        absent = np.setdiff1d(np.arange(len(self._index.phrases)), shown)
        return int(rng.choice(absent)) if len(absent) else self._index.number(row)

    def _read_image(self, number: int) -> Tensor:
        return self._source.read_image(str(self.image_ids[number]))

    def _read_mask(self, row: int, height: int, width: int) -> NDArray[np.uint8]:
        mask = self._source.read_mask(str(self.image_ids[self._image_of_task[row]]), self._names[row])
        assert mask.shape == (height, width)  # the source compares photos with annotations
        return mask
