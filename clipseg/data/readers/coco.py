"""COCO as published -> the episodes of COCO-20i, by one support image or by text, and the training on its other folds.

Source: the paper, Sec. 4.3, Tab. 6.
"""

from dataclasses import replace
from pathlib import Path

from clipseg.data.classes import COCO_CLASSES, coco20i_fold
from clipseg.data.layout import annotation_files, wrong_layout
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers.episodes import EpisodeReader, draw_episodes, read_episodes
from clipseg.data.readers.instance_tasks import InstanceTasks
from clipseg.data.readers.instances import InstanceSource, read_instances
from clipseg.errors import ClipSegError

EPISODES = 1000  # of each fold


def coco20i(
    root: str | Path,
    *,
    split: str = "val2014",
    fold: int,
    seed: int = 0,
    visual_support: bool,
    count: int = EPISODES,
    episodes: str | Path | None = None,
) -> EpisodeReader:
    """The episodes of a fold: a class, an image that shows it as query, another as support.

    By text the same images are asked for the class's name instead, so that both can be compared task for task.

    Args:
        root: the folder that holds `instances_<split>.json`, itself or in `annotations`, and the photos in `<split>`.
        split: of queries and supports: val2014, or 2017's.
        fold: 0 to 3.
        seed: of the episodes.
        visual_support: give each task its support (one-shot) or not (text).
        count: how many episodes; the paper's is 1,000.
        episodes: a file of `EpisodeReader.save`, whose episodes are used instead.

    Raises:
        ClipSegError: another layout, no such split or fold, a class with one image, malformed annotations, pycocotools is
            missing, or episodes that do not fit.
    """
    classes = coco20i_fold(fold)
    if count < 1:
        raise ClipSegError(f"{count} episodes; expected at least 1 (the paper's {EPISODES})")
    source = coco_source(root, split=split, classes=classes)
    images_by_class = source.images_by_class()
    about: dict[str, str | int] = {"benchmark": "coco20i", "split": split, "fold": fold}
    if episodes is not None:
        drawn = read_episodes(episodes, images_by_class, about)
    else:
        drawn = draw_episodes(images_by_class, source.is_empty, count=count, seed=seed, where=str(source.table.path))
    return EpisodeReader(source, drawn, about=about, seed=seed, visual_support=visual_support)


def coco20i_training(root: str | Path, options: ReaderOptions, *, split: str = "train2014", fold: int) -> InstanceTasks:
    """Training on the sixty classes that a fold does not hold out: every image, whole, and class it shows, once an epoch.

    Args:
        root: as in `coco20i`.
        options: how items are made of the tasks; images are never cropped.
        split: of the images.
        fold: 0 to 3, whose classes are left out.

    Raises:
        ClipSegError: as in `coco20i`.
    """
    held_out = coco20i_fold(fold)
    source = coco_source(root, split=split, classes=tuple(name for name in COCO_CLASSES if name not in held_out))
    return InstanceTasks(source, replace(options, crop=False), split=split)


def coco20i_validation(
    root: str | Path, *, split: str = "val2014", fold: int, seed: int = 0, visual_support: bool = True, count: int = EPISODES
) -> EpisodeReader:
    """Episodes of the sixty classes that training sees, on other photos: held-out classes must not choose the checkpoint.

    Arguments and errors as in `coco20i`.
    """
    held_out = coco20i_fold(fold)
    source = coco_source(root, split=split, classes=tuple(name for name in COCO_CLASSES if name not in held_out))
    # A class that few photos show has no episodes here, unlike in a benchmark.
    images_by_class = {name: images for name, images in source.images_by_class().items() if len(images) > 1}
    if not images_by_class:
        raise ClipSegError(f"{source.table.path}: no class of training has two images; choose another data.val_split")
    drawn = draw_episodes(images_by_class, source.is_empty, count=count, seed=seed, where=str(source.table.path))
    about: dict[str, str | int] = {"benchmark": "coco20i_validation", "split": split, "fold": fold}
    return EpisodeReader(source, drawn, about=about, seed=seed, visual_support=visual_support)


def coco_source(root: str | Path, *, split: str, classes: tuple[str, ...]) -> InstanceSource:
    """COCO's photos of a split, and masks of some of `COCO_CLASSES`.

    Raises:
        ClipSegError: another layout, no such split or class, or malformed annotations.
    """
    unknown = [name for name in classes if name not in COCO_CLASSES]
    if unknown:
        raise ClipSegError(f"class {unknown[0]!r} unknown; expected one of {', '.join(COCO_CLASSES)}")
    path = annotation_file(root, "coco", split=split)
    return InstanceSource(read_instances(path, wanted=classes), Path(root), {name: (name,) for name in classes})


def annotation_file(root: str | Path, layout: str, *, split: str) -> Path:
    """The annotation file of a split of COCO or LVIS.

    Raises:
        ClipSegError: another layout, or no such split.
    """
    files = annotation_files(Path(root), {"coco": "instances_", "lvis": "lvis_v1_"}[layout])
    if not files:
        raise wrong_layout(Path(root), layout)
    unlabelled = annotation_files(Path(root), {"coco": "image_info_", "lvis": "lvis_v1_image_info_"}[layout])
    if split not in files and split in unlabelled:
        raise ClipSegError(f"{unlabelled[split]}: split {split!r} has no ground truth; choose one of {', '.join(files)}")
    if split not in files:
        raise ClipSegError(f"data.root={root}: split {split!r} unknown; expected one of {', '.join(files)}")
    return files[split]
