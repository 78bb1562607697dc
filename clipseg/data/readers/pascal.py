"""Pascal VOC 2012 as published (VOCdevkit) -> one-shot and text tasks of Pascal-5i, and label maps for zero-shot.

Source: the paper, Sec. 4.2 and 4.3, Tab. 4, 5 and 7.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipseg.data.classes import PASCAL_CLASSES, pascal5i_fold
from clipseg.data.layout import check_inside, voc_folder, wrong_layout
from clipseg.data.readers.episodes import EpisodeReader, all_episodes, read_episodes, with_supports
from clipseg.errors import ClipSegError
from clipseg.files import read_text
from clipseg.image_io import open_pil, read_image

IGNORED = 255  # the label of the border around each object, and of what is hard to say


class PascalSplit:
    """The photos and label maps of one split; a `MaskSource` whose names are `PASCAL_CLASSES`.

    Args:
        root: the folder that holds VOC2012, or VOC2012 itself.
        split: train, val or trainval: a list under `ImageSets/Segmentation`.

    Attributes:
        image_ids: in the order of the list.

    Raises:
        ClipSegError: another layout, no such split, or a list that is malformed.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root)
        folder = voc_folder(self.root)
        if folder is None:
            raise wrong_layout(self.root, "pascal")
        self.folder = folder
        self.image_ids = _read_split(folder, split)

    def read_image(self, image_id: str) -> Tensor:
        """uint8 RGB `[3, H, W]`."""
        path = self.photo_path(image_id)
        check_inside(path, self.root)
        return read_image(path, exif=False)

    def photo_path(self, image_id: str) -> Path:
        """Where a photo lies."""
        return self.folder / "JPEGImages" / f"{image_id}.jpg"

    def read_labels(self, image_id: str) -> Tensor:
        """A label map, uint8 `[H, W]` of the photo's size: 0 background, 1 to 20 classes, 255 ignored.

        Raises:
            ClipSegError: missing or damaged, in colours, with other values, not of the photo's size, or a link that leaves the
                folder.
        """
        path = self.folder / "SegmentationClass" / f"{image_id}.png"
        check_inside(path, self.root)
        if not path.exists():
            raise ClipSegError(f"{path}: no such label map; fetch it (VOC's test has none: choose train, val or trainval)")
        labels = _read_palette(path)
        wrong = labels[(labels > len(PASCAL_CLASSES)) & (labels != IGNORED)]
        if len(wrong):
            raise ClipSegError(f"{path}: label value {wrong[0]}; expected 0 to {len(PASCAL_CLASSES)} and {IGNORED}")
        with open_pil(self.photo_path(image_id)) as photo:
            width, height = photo.size
        if labels.shape != (height, width):
            size = f"{labels.shape[1]}x{labels.shape[0]}"
            raise ClipSegError(f"{path}: {size} pixels, but its photo has {width}x{height}; fetch both again")
        return torch.from_numpy(labels)

    def read_masks(self, image_id: str, names: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        """A mask for each class, uint8 `[H, W]`, and where pixels count."""
        labels = self.read_labels(image_id)
        masks = [(labels == PASCAL_CLASSES.index(name) + 1).byte() for name in names]
        return masks, (labels != IGNORED).byte()

    def images_by_class(self, classes: Sequence[str]) -> dict[str, list[str]]:
        """Class -> the images that show it, from all label maps (some seconds for the real data set).

        Raises:
            ClipSegError: Pascal VOC has no such class, or a label map cannot be read.
        """
        unknown = [name for name in classes if name not in PASCAL_CLASSES]
        if unknown:
            raise ClipSegError(f"class {unknown[0]!r} unknown; expected one of {', '.join(PASCAL_CLASSES)}")
        shown = {image_id: set(self.read_labels(image_id).unique().tolist()) for image_id in self.image_ids}
        labels = {name: PASCAL_CLASSES.index(name) + 1 for name in classes}
        return {name: [image_id for image_id in self.image_ids if label in shown[image_id]] for name, label in labels.items()}


def _read_split(folder: Path, split: str) -> list[str]:
    lists = folder / "ImageSets" / "Segmentation"
    known = sorted(path.stem for path in lists.glob("*.txt"))
    if split not in known:
        raise ClipSegError(f"{lists}: split {split!r} unknown; expected one of {', '.join(known) or 'none: it is empty'}")
    path = lists / f"{split}.txt"
    image_ids = read_text(path).split()
    for image_id in image_ids:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", image_id):
            raise ClipSegError(f"{path}: image {image_id!r}; expected names such as 2007_000033")
    if not image_ids or len(set(image_ids)) != len(image_ids):
        raise ClipSegError(f"{path}: no image, or one twice; fetch it again")
    return image_ids


def _read_palette(path: Path) -> np.ndarray:
    with open_pil(path) as image:
        if image.mode not in ("P", "L"):
            raise ClipSegError(f"{path}: a picture of mode {image.mode}; expected VOC's palette PNG, whose values are labels")
        try:
            return np.array(image)
        # Decoders raise whatever they meet in damaged bytes; all of it means the same to a caller.
        except Exception as error:
            raise ClipSegError(f"{path}: truncated or damaged ({error}); fetch the file again") from error


def pascal_text(root: str | Path, *, split: str = "val", classes: Sequence[str], seed: int = 0) -> EpisodeReader:
    """Pascal-5i by text: each image and each of `classes` it shows is a task, its phrase the class's name (Tab. 7).

    Args:
        root: the folder that holds VOC2012.
        split: of the images.
        classes: such as `pascal5i_fold(fold)`.
        seed: of the choices of prompts.

    Raises:
        ClipSegError: another layout, no such split or class, or damaged label maps.
    """
    source = PascalSplit(root, split)
    about: dict[str, str | int] = {"benchmark": "pascal5i", "split": split}
    return EpisodeReader(source, all_episodes(source.images_by_class(classes)), about=about, seed=seed, visual_support=False)


def pascal_one_shot(
    root: str | Path, *, split: str = "val", fold: int, seed: int = 0, episodes: str | Path | None = None
) -> EpisodeReader:
    """Pascal-5i one-shot: the tasks of `pascal_text`, each with a random other image of its class as support (Tab. 5).

    Args:
        root: the folder that holds VOC2012.
        split: of queries and supports.
        fold: 0 to 3.
        seed: of the supports.
        episodes: a file of `EpisodeReader.save`, whose episodes are used instead.

    Raises:
        ClipSegError: another layout, no such split or fold, a class with one image, damaged label maps, or episodes that do
            not fit.
    """
    source = PascalSplit(root, split)
    images_by_class = source.images_by_class(pascal5i_fold(fold))
    about: dict[str, str | int] = {"benchmark": "pascal5i", "split": split, "fold": fold}
    if episodes is not None:
        drawn = read_episodes(episodes, images_by_class, about)
    else:
        drawn = with_supports(
            all_episodes(images_by_class), images_by_class, seed=seed, where=f"{source.folder}, split {split}"
        )
    return EpisodeReader(source, drawn, about=about, seed=seed, visual_support=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One image with what each pixel shows.

    Attributes:
        image_key: its name, such as "2007_000033".
        image: uint8 RGB `[3, H, W]`.
        labels: uint8 `[H, W]`: 0 background, 1 to 20 `PASCAL_CLASSES`, 255 ignored.
    """

    image_key: str
    image: Tensor
    labels: Tensor


class PascalZeroShot(Dataset[LabelledImage]):
    """Every image of a split with its label map: what generalised zero-shot segmentation is measured on (Tab. 4).

    Args:
        root: the folder that holds VOC2012.
        split: of the images.

    Attributes:
        image_ids: str `[I]`.

    Raises:
        ClipSegError: another layout, or no such split.
    """

    def __init__(self, root: str | Path, *, split: str = "val") -> None:
        self._source = PascalSplit(root, split)
        self.image_ids = np.array(self._source.image_ids)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: tuple[int, int] | int) -> LabelledImage:
        """Read one image; `index` is the item, or `(epoch, item)`.

        Raises:
            ClipSegError: a file is missing, damaged, or of another size than its photo, or a label is none of VOC's.
        """
        item = index[1] if isinstance(index, tuple) else index
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of {len(self)}")
        image_id = str(self.image_ids[item])
        return LabelledImage(
            image_key=image_id, image=self._source.read_image(image_id), labels=self._source.read_labels(image_id)
        )
