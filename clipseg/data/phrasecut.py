"""PhraseCut's official layout on disk -> `Sample`s. One reader serves the real data set, the bundled one and a user's own."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg.data.annotations import read_images, read_tasks
from clipseg.data.layout import IMAGE_FOLDERS, IMAGES_FILE, KNOWN_BAD_IMAGES, locate_images, split_files
from clipseg.data.phrase_tasks import EVALUATION, PhraseTasks, ReaderOptions
from clipseg.data.rasterise import rasterise, rasterise_official
from clipseg.data.subsets import from_bits, read_vocabulary, size_subset
from clipseg.errors import ClipSegError, listed
from clipseg.image_io import read_image


@dataclass(kw_only=True)
class Leniency:
    """Parts of PhraseCut that are left out or let pass.

    Attributes:
        skip_known_bad: leave out the 17 images of the real data set whose annotated size is wrong, as the authors do.
        allow_missing: leave out images that are not there, with a warning.
        allow_degenerate: take tasks without polygon and polygons of one or two points, as PhraseCut's evaluator does, and ask
            tasks whose boxes have no area, which else are only occurrences of their phrase, as released.
    """

    skip_known_bad: bool = True
    allow_missing: bool = False
    allow_degenerate: bool = False


STRICT = Leniency()


class PhraseCut(PhraseTasks):
    """Images with phrases and masks; items as in `PhraseTasks`, in evaluation in the order of the file.

    Args:
        root: folder of `image_data_split.json`, `refer_<split>.json` and the photos, `<id>.jpg` in `images`, `VG_100K`
            or `VG_100K_2`.
        options: how items are made of the tasks.
        split: train, val, test, miniv or any other `refer_<split>.json` there is; or several joined by "_" ("val_miniv").
        leniency: what is left out or let pass.

    Attributes:
        tasks: the packed annotations (`TaskTable`); `task_rows` are those in use.
        missing_subsets: PhraseCut's named subsets that cannot be told here, by what they need; in evaluation only.

    Raises:
        ClipSegError: the folder, a split, an annotation or photos are missing or malformed.

    Source: the paper, Sec. 4.1 (data) and the released settings (crop, the 17 images).
    """

    def __init__(
        self,
        root: str | Path,
        options: ReaderOptions = EVALUATION,
        *,
        split: str = "train",
        leniency: Leniency = STRICT,
    ) -> None:
        self.root = Path(root)
        self.split = split
        files = split_files(self.root, split)
        images = read_images(self.root)
        vocabulary = None if options.training else read_vocabulary(self.root)
        self.missing_subsets = vocabulary.missing if vocabulary else {}
        self.tasks = read_tasks(
            files, image_ids=images.keys(), allow_degenerate=leniency.allow_degenerate, vocabulary=vocabulary
        )
        bad = np.fromiter(KNOWN_BAD_IMAGES if leniency.skip_known_bad else (), dtype=np.int64)
        usable = ~np.isin(self.tasks.image_ids, bad)
        found = locate_images(self.root, np.unique(self.tasks.image_ids[usable]).tolist())
        usable &= _present(
            self.tasks.image_ids, usable, found, allow_missing=leniency.allow_missing, where=f"{self.root}, split {split}"
        )
        super().__init__(
            options,
            keys=self.tasks.keys,
            phrases=self.tasks.phrases,
            images=self.tasks.image_ids,
            task_rows=np.flatnonzero(usable),
            unasked=None if leniency.allow_degenerate else self.tasks.boxless,
            where=f"{self.root}: split {split}",
        )
        sizes = [(images[i].height, images[i].width) for i in self._photos.tolist()]
        self._sizes = np.array(sizes, dtype=np.int64)
        self._folders = np.array([IMAGE_FOLDERS.index(found[i]) for i in self._photos.tolist()], dtype=np.uint8)

    def _read_image(self, number: int) -> torch.Tensor:
        path = self.root / IMAGE_FOLDERS[self._folders[number]] / f"{self._photos[number]}.jpg"
        image = read_image(path, exif=False)
        height, width = self._sizes[number].tolist()
        if tuple(image.shape[1:]) != (height, width):
            raise ClipSegError(
                f"{path}: {image.shape[2]}x{image.shape[1]} pixels, but {IMAGES_FILE} says {width}x{height}; fetch the photo "
                f"again or remove its tasks (`clipseg data check {self.root}` lists all such photos)"
            )
        return image

    def _read_mask(self, row: int, height: int, width: int) -> NDArray[np.uint8]:
        return rasterise(self.tasks.polygons(row), height, width)

    def _evaluated(self, row: int, mask: torch.Tensor) -> dict[str, Any]:
        size = size_subset(mask.count_nonzero().item() / mask.numel())
        official = rasterise_official(self.tasks.polygons(row), *mask.shape)
        return {"subsets": (*from_bits(int(self.tasks.subsets[row])), size), "official": torch.from_numpy(official)}


def _present(
    image_ids: NDArray[np.int64], usable: NDArray[np.bool_], found: dict[int, str], *, allow_missing: bool, where: str
) -> NDArray[np.bool_]:
    """bool `[T]`: the task's image is there. Raises for missing ones unless they may be left out."""
    present = np.isin(image_ids, np.fromiter(found, dtype=np.int64))
    missing = np.unique(image_ids[usable & ~present])
    if len(missing):
        total = len(np.unique(image_ids[usable]))
        message = f"{where}: {len(missing):,} of {total:,} images are missing: {listed(missing)}"
        if not allow_missing:
            raise ClipSegError(f"{message}; fetch them, or leave them out with data.allow_missing=true")
        warnings.warn(f"{message}; they are left out", stacklevel=3)
    return present
