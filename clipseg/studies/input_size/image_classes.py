"""Images of one class each, some to learn from and some to test on: a folder a class, or synthetic scenes of a single thing.

CLIP's linear probe is measured on them (the paper's Fig. 5). The classes are the folders' names, or the synthetic categories.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg.data.mini.phrasecut import SIDE
from clipseg.data.mini.scenes import COLOURS, SIZES, Kind, draw_scene
from clipseg.data.mini.shapes import CATEGORIES, PATTERNS
from clipseg.data.sample import Sample
from clipseg.errors import ClipSegError
from clipseg.image_io import SUFFIXES, read_image

TRAIN_SPLIT = "train"
TEST_SPLIT = "test"
TEST_SHARE = 0.3  # of each class, where the data come without a split
SYNTHETIC_PER_CLASS = {TRAIN_SPLIT: 50, TEST_SPLIT: 50}


@dataclass(eq=False, kw_only=True)
class ImagesByClass:
    """A `Reader` of whole images: its samples have no tasks.

    Attributes:
        names: of the K classes.
        image_ids: `[I]`, of the images.
        labels: int64 `[I]`, the place of each image's class in `names`.
        is_test: bool `[I]`, whether an image is tested on; the others are learned from.
        read: item -> uint8 RGB `[3, H, W]`.
    """

    names: tuple[str, ...]
    image_ids: NDArray[Any]
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    read: Callable[[int], Tensor]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        """The image `(epoch, item)`."""
        item = index[1]
        return Sample(image_key=str(self.image_ids[item]), image=self.read(item), tasks=())


def class_folders(root: str | Path, *, split: str = TEST_SPLIT, seed: int = 0) -> ImagesByClass:
    """Read folders of images, upright as their EXIF data say; the name of a folder is its class.

    Args:
        root: holds `train/<class>/<image>` and `<split>/<class>/<image>`; or `<class>/<image>`, and then 30% of each class,
            drawn with `seed`, are tested on (at least one image, and at least one is learned from).
        split: the folder beside `train` that is tested on.
        seed: of the drawn split.

    Raises:
        ClipSegError: no such folder or split, fewer than two classes, a class that occurs in the test alone, or one with too
            few images.
    """
    root = Path(root)
    if not root.is_dir():
        raise ClipSegError(f"data.root={root}: no such folder; set data.root to a folder with one folder of images a class")
    if not _folders(root / TRAIN_SPLIT):
        if split != TEST_SPLIT:
            raise ClipSegError(f"data.root={root}: split={split}, but no {TRAIN_SPLIT}/<class> beside it; leave split out")
        paths, labels, names = _list_classes(root)
        return _labelled(root, paths, labels, names, is_test=_draw_test(labels, names, seed=seed, root=root))
    if not _folders(root / split):
        others = ", ".join(folder.name for folder in _folders(root) if folder.name != TRAIN_SPLIT) or "none"
        raise ClipSegError(f"data.root={root}: no {split}/<class> beside {TRAIN_SPLIT}; add split=NAME, one of: {others}")
    paths, labels, names = _list_classes(root / TRAIN_SPLIT)
    test_paths, test_labels, test_names = _list_classes(root / split)
    strangers = sorted(set(test_names) - set(names))
    if strangers:
        raise ClipSegError(f"{root / split}: class {strangers[0]!r} is not in {root / TRAIN_SPLIT}, which names {len(names)}")
    test_labels = np.array([names.index(name) for name in test_names])[test_labels]
    is_test = np.repeat([False, True], [len(paths), len(test_paths)])
    return _labelled(root, [*paths, *test_paths], np.concatenate([labels, test_labels]), names, is_test=is_test)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where it is not there."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def _list_classes(folder: Path) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...]]:
    """The images of each class folder, with the place of their class among the names."""
    images = {}
    for place in _folders(folder):
        images[place.name] = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    empty = [name for name, paths in images.items() if not paths]
    if len(images) < 2 or empty:
        found = f"class {empty[0]!r} without an image" if empty else f"{len(images)} class folders"
        raise ClipSegError(f"{folder}: {found}; expected at least two folders of images, each named by its class")
    labels = np.repeat(np.arange(len(images)), [len(paths) for paths in images.values()])
    return [path for paths in images.values() for path in paths], labels, tuple(images)


def _draw_test(labels: NDArray[np.int64], names: Sequence[str], *, seed: int, root: Path) -> NDArray[np.bool_]:
    """`TEST_SHARE` of each class, a function of the seed."""
    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=np.bool_)
    for label, name in enumerate(names):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise ClipSegError(f"{root}: class {name!r} has one image; at least two are needed, to learn from and to test on")
        is_test[members[: min(max(round(TEST_SHARE * len(members)), 1), len(members) - 1)]] = True
    return is_test


def _labelled(
    root: Path, paths: Sequence[Path], labels: NDArray[np.int64], names: tuple[str, ...], *, is_test: NDArray[np.bool_]
) -> ImagesByClass:
    image_ids = np.array([path.relative_to(root).as_posix() for path in paths])
    read = functools.partial(_read_file, root, image_ids)
    return ImagesByClass(names=names, image_ids=image_ids, labels=labels, is_test=is_test, read=read)


def _read_file(root: Path, image_ids: NDArray[np.str_], item: int) -> Tensor:
    return read_image(root / str(image_ids[item]))


def single_objects(*, seed: int = 0) -> ImagesByClass:
    """Scenes of the bundled data set with a single thing each, of any colour and size; the classes are its categories.

    Each scene is a function of the seed and its number. 50 of each of the eight classes are learned from, 50 tested on.
    """
    names = tuple(CATEGORIES)
    counts = [len(names) * count for count in SYNTHETIC_PER_CLASS.values()]
    items = np.arange(sum(counts))
    return ImagesByClass(
        names=names,
        image_ids=items,
        labels=items % len(names),
        is_test=np.repeat([split == TEST_SPLIT for split in SYNTHETIC_PER_CLASS], counts),
        read=functools.partial(_draw, seed),
    )


def _draw(seed: int, item: int) -> Tensor:
    rng = np.random.default_rng([seed, item])
    category, chosen = (
        list(CATEGORIES)[item % len(CATEGORIES)],
        (rng.choice(list(words)) for words in (COLOURS, SIZES, PATTERNS)),
    )
    kind = Kind(category, *map(str, chosen))
    return torch.from_numpy(draw_scene(rng, [kind], side=SIDE).image.transpose(2, 0, 1).copy())
