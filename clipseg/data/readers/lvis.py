"""LVIS v1 as published -> prompts that name no class: what one can do with a thing, how it is, what it has.

Source: the paper, Sec. 4.4, Tab. 8.
"""

import re
from pathlib import Path

from clipseg.data.classes import LVIS_PROMPTS
from clipseg.data.phrase_tasks import PhraseFilter, ReaderOptions
from clipseg.data.readers.episodes import EpisodeReader, all_episodes
from clipseg.data.readers.instance_tasks import InstanceTasks
from clipseg.data.readers.instances import InstanceSource, annotation_file, read_instances
from clipseg.errors import ClipSegError


def lvis_prompts(root: str | Path, *, split: str = "val", kind: str, seed: int = 0) -> EpisodeReader:
    """Each image and each prompt that is true of something annotated in it; the mask is the union of all of which it is true.

    Args:
        root: the folder that holds `lvis_v1_<split>.json`, itself or in `annotations`, and COCO's photos in `train2017` and
            `val2017` (LVIS's val has photos of both).
        split: train or val.
        kind: affordances, attributes or meronymy.
        seed: of the choices of prompts.

    Raises:
        ClipSegError: another layout, no such split or kind, malformed annotations, or pycocotools is missing.
    """
    if kind not in LVIS_PROMPTS:
        raise ClipSegError(f"prompts {kind!r} unknown; expected one of {', '.join(LVIS_PROMPTS)}")
    wanted = {category for categories in LVIS_PROMPTS[kind].values() for category in categories}
    table = read_instances(annotation_file(root, "lvis", split=split), wanted=wanted)
    source = InstanceSource(table, Path(root), LVIS_PROMPTS[kind])
    about: dict[str, str | int] = {"benchmark": f"lvis_{kind}", "split": split}
    return EpisodeReader(source, all_episodes(source.images_by_class()), about=about, seed=seed, visual_support=False)


def lvis_training(root: str | Path, options: ReaderOptions, *, split: str = "train") -> InstanceTasks:
    """Training on the classes of LVIS, by their names (Tab. 8, CLIPSeg (LVIS)).

    Args:
        root: as in `lvis_prompts`.
        options: how items are made of the tasks.
        split: of the images.

    Raises:
        ClipSegError: another layout, no such split, malformed annotations, or pycocotools is missing.
    """
    return InstanceTasks(_named_source(root, split, options.exclude), options, split=split)


def lvis_names(root: str | Path, *, split: str = "val", seed: int = 0, exclude: PhraseFilter | None = None) -> EpisodeReader:
    """Ask for what `lvis_training` learns, on whole photos: each image and each class it shows, asked for by its name.

    Args:
        root: as in `lvis_prompts`.
        split: of the images.
        seed: of the choices of templates.
        exclude: which names to leave out: names `[C]` -> bool `[C]`.

    Raises:
        ClipSegError: as in `lvis_training`.
    """
    source = _named_source(root, split, exclude)
    about: dict[str, str | int] = {"benchmark": "lvis_names", "split": split}
    return EpisodeReader(source, all_episodes(source.images_by_class()), about=about, seed=seed, visual_support=False)


def _named_source(root: str | Path, split: str, exclude: PhraseFilter | None) -> InstanceSource:
    table = read_instances(annotation_file(root, "lvis", split=split))
    names: dict[str, list[str]] = {}
    for category in table.categories:
        names.setdefault(natural_name(category), []).append(category)
    if exclude is not None:
        kept = [name for name, excluded in zip(names, exclude(list(names)).tolist(), strict=True) if not excluded]
        names = {name: names[name] for name in kept}
    return InstanceSource(table, Path(root), names)


def natural_name(category: str) -> str:
    """A category as one would say it: "bus_(vehicle)" is a bus. Categories that are then called the same share a mask."""
    return re.sub(r"_\(.*?\)", "", category).replace("_", " ").strip()
