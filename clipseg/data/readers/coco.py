"""COCO as published -> the episodes of COCO-20i, by one support image or by text, and the training on its other folds.

Source: the paper, Sec. 4.3, Tab. 6; docs/paper.md, Sec. 5, for what was run.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from clipseg.data.classes import COCO_CLASSES, coco20i_fold
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers.class_draws import ClassDraws
from clipseg.data.readers.coco_labels import CocoLabels, coco_labels, read_class_lists
from clipseg.data.readers.episodes import LEAST_PIXELS, Episode, EpisodeReader, draw_episodes, read_episodes, too_few
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
    class_lists: str | Path | None = None,
    episodes: str | Path | None = None,
) -> EpisodeReader:
    """The episodes of a fold: a class, an image that shows it as query, another as support.

    By text the same images are asked for the class's name instead, so that both can be compared task for task.

    Args:
        root: the folder that holds `annotations` and the photos in `<split>`, see `coco_labels`.
        split: of queries and supports: val2014, or 2017's.
        fold: 0 to 3.
        seed: of the episodes.
        visual_support: give each task its support (one-shot) or not (text).
        count: how many episodes; the paper's is 1,000.
        class_lists: a file of the images of each class; else those where it has `LEAST_PIXELS`.
        episodes: a file of `EpisodeReader.save`, whose episodes are used instead.

    Raises:
        ClipSegError: another layout, no such split or fold, a class with one image, malformed annotations, pycocotools is
            missing, or lists or episodes that do not fit.
    """
    if count < 1:
        raise ClipSegError(f"{count} episodes; expected at least 1 (the paper's {EPISODES})")
    if episodes is not None and class_lists is not None:
        raise ClipSegError(f"data.class_lists={class_lists}: with episodes={episodes} nothing is drawn; leave one of them out")
    names = coco20i_fold(fold)
    source = coco_labels(root, split)
    about: dict[str, str | int] = {"benchmark": "coco20i", "split": split, "fold": fold}
    if episodes is not None:
        drawn = read_episodes(episodes, source, names, about)
        about["drawn"] = f"by others: {Path(episodes).name}"
    else:
        lists = _lists(source, names, class_lists)
        for name, images in lists.items():
            if len(images) < 2:
                raise too_few(name, str(class_lists or source.where))
        drawn = _drawn(source, lists, count=count, seed=seed)
        about["drawn"] = _origin(class_lists)
    about["labels"] = source.labels
    return EpisodeReader(source, drawn, about=about, seed=seed, visual_support=visual_support)


def coco20i_training(
    root: str | Path,
    options: ReaderOptions,
    *,
    split: str = "train2014",
    fold: int,
    class_lists: str | Path | None = None,
    sound_negatives: bool = False,
) -> ClassDraws:
    """Training on the sixty classes that a fold does not hold out, drawn as the episodes of the test are.

    Args:
        root: as in `coco20i`.
        options: how items are made of the draws; images are never cropped.
        split: of the images.
        fold: 0 to 3, whose classes are left out.
        class_lists: as in `coco20i`.
        sound_negatives: as in `ClassDraws`.

    Raises:
        ClipSegError: as in `coco20i`.
    """
    source = coco_labels(root, split)
    lists = _trained(source, fold, class_lists)
    return ClassDraws(source, lists, options, split=split, sound_negatives=sound_negatives)


def coco20i_validation(
    root: str | Path, *, split: str = "val2014", fold: int, seed: int = 0, visual_support: bool = True, count: int = EPISODES
) -> EpisodeReader:
    """Episodes of the sixty classes that training sees, on other photos: held-out classes must not choose the checkpoint.

    Arguments and errors as in `coco20i`.
    """
    source = coco_labels(root, split)
    about: dict[str, str | int] = {"benchmark": "coco20i_validation", "split": split, "fold": fold}
    drawn = _drawn(source, _trained(source, fold), count=count, seed=seed)
    return EpisodeReader(source, drawn, about=about, seed=seed, visual_support=visual_support)


def _origin(class_lists: str | Path | None) -> str:
    """Return what lists are named by in a result."""
    return f"from classes of at least {LEAST_PIXELS} pixels" if class_lists is None else f"from {Path(class_lists).name}"


def _lists(source: CocoLabels, names: Collection[str], class_lists: str | Path | None) -> dict[str, list[str]]:
    """The images of each class.

    Raises:
        ClipSegError: a file that does not fit.
    """
    if class_lists is None:
        return source.images_by_class(names, LEAST_PIXELS)
    given = read_class_lists(class_lists, source)
    lists = {name: given[name] for name in names if name in given}
    if not lists:
        raise ClipSegError(f"{class_lists}: lists none of {', '.join(names)}; choose another fold or file")
    return lists


def _trained(source: CocoLabels, fold: int, class_lists: str | Path | None = None) -> dict[str, list[str]]:
    """The images of the sixty classes that a fold does not hold out, without those that fewer than two images show.

    Raises:
        ClipSegError: none is left, or a file that does not fit.
    """
    held_out = coco20i_fold(fold)
    lists = _lists(source, [name for name in COCO_CLASSES if name not in held_out], class_lists)
    lists = {name: images for name, images in lists.items() if len(images) > 1}
    if not lists:
        raise ClipSegError(f"{class_lists or source.where}: no class of training has two images; choose another split or lists")
    return lists


def _drawn(source: CocoLabels, lists: Mapping[str, list[str]], *, count: int, seed: int) -> list[Episode]:
    """`count` episodes whose masks have a pixel: what is listed may be hidden by smaller things."""
    draws = draw_episodes(lists, np.random.default_rng(seed))
    drawn: list[Episode] = []
    for _ in range(10 * count):
        episode = next(draws)
        images = (episode.query, str(episode.support))
        if all(source.read_masks(image_id, [episode.name])[0][0].any() for image_id in images):
            drawn.append(episode)
            if len(drawn) == count:
                return drawn
    raise ClipSegError(f"{source.where}: most images do not show the class they are listed for; take other lists or labels")
