"""Fixed tasks on whole images: this image, this class or prompt, shown by that support image; drawn, or from a file.

The reader of every benchmark whose masks belong to classes: Pascal-5i, COCO-20i, and the prompts on LVIS.
"""

import reprlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from clipseg.data.sample import Sample, Support, Task
from clipseg.data.sampling import split_index
from clipseg.errors import ClipSegError
from clipseg.files import read_json, write_json

ImageIdsByClass = Mapping[str, Sequence[str]]

LEAST_PIXELS = 2048  # of a class in an image that is listed for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One task: find `name` in the image `query`; `support` is the image that shows it, None where text alone asks."""

    query: str
    name: str
    support: str | None = None


class MaskSource(Protocol):
    """Photos with a mask for each of some names."""

    @property
    def image_ids(self) -> Collection[str]:
        """The names of all photos."""

    def read_image(self, image_id: str) -> Tensor:
        """uint8 RGB `[3, H, W]`."""

    def read_masks(self, image_id: str, names: Sequence[str]) -> tuple[list[Tensor], Tensor | None]:
        """A mask for each name, uint8 `[H, W]`, and where pixels count (see `Sample.valid`); all of the photo's size."""


class EpisodeReader(Dataset[Sample]):
    """Episodes as `Sample`s: item i is one whole image with all the episodes that ask about it.

    Args:
        source: reads photos and masks.
        episodes: in the order wanted; items stand in the order their images first appear in.
        about: what the episodes are of: benchmark, split, and such as the fold. The split is the first part of every key.
        seed: of the choices still to be made for a task (its template, its mix).
        visual_support: read the support images; without, text alone asks.

    Attributes:
        image_ids: str `[I]`, the images of the items.
        episodes: as given.
        about: as given.

    Raises:
        ClipSegError: there are no episodes.
    """

    def __init__(
        self,
        source: MaskSource,
        episodes: Sequence[Episode],
        *,
        about: Mapping[str, str | int],
        seed: int,
        visual_support: bool,
    ) -> None:
        if not episodes:
            raise ClipSegError(
                f"split {about['split']} shows none of the classes asked for; choose another split or other classes"
            )
        if seed < 0:
            raise ClipSegError(f"seed={seed}; expected a whole number of at least 0")
        self.seed = seed
        self.visual_support = visual_support
        self.about = dict(about)
        self.episodes = tuple(episodes)
        self._source = source
        self._keys = _keys(str(about["split"]), episodes)
        self._numbers: dict[str, list[int]] = {}
        for number, episode in enumerate(episodes):
            self._numbers.setdefault(episode.query, []).append(number)
        self.image_ids = np.array(list(self._numbers))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: tuple[int, int] | int) -> Sample:
        """Read one image with its tasks.

        Args:
            index: the item, or `(epoch, item)`; every epoch is the same.

        Raises:
            ClipSegError: a photo or a mask is damaged, gone, or not of the annotated size, or a support mask is empty.
        """
        _, item = split_index(index, len(self))
        query = str(self.image_ids[item])
        numbers = self._numbers[query]
        masks, valid = self._source.read_masks(query, [self.episodes[number].name for number in numbers])
        tasks = [self._task(number, mask) for number, mask in zip(numbers, masks, strict=True)]
        return Sample(image_key=query, image=self._source.read_image(query), tasks=tasks, valid=valid)

    def _task(self, number: int, mask: Tensor) -> Task:
        episode = self.episodes[number]
        seed = int(np.random.default_rng((self.seed, number)).integers(2**63))
        shown = self.visual_support and episode.support is not None
        support = read_support(self._source, str(episode.support), episode.name) if shown else None
        return Task(key=self._keys[number], phrase=episode.name, mask=mask, group=episode.name, seed=seed, support=support)

    def save(self, path: str | Path) -> None:
        """Write the episodes as JSON, under what they are of, so that a score can be repeated; `read_episodes` reads them."""
        write_json(path, {**self.about, "seed": self.seed, "episodes": [asdict(episode) for episode in self.episodes]})


def read_support(source: MaskSource, image_id: str, name: str) -> Support:
    """The visual prompt that an image is for a name.

    Raises:
        ClipSegError: nothing of it is in the image, or a file is damaged or gone.
    """
    (mask,), _ = source.read_masks(image_id, [name])
    if not mask.any():
        raise ClipSegError(f"support image {image_id}: its mask of {name!r} is empty; draw the episodes again")
    return Support(image=source.read_image(image_id), mask=mask)


def _keys(split: str, episodes: Sequence[Episode]) -> list[str]:
    """ "<split>/<image>__<name>", and "__2" and so on where the same is asked again."""
    asked: Counter[tuple[str, str]] = Counter()
    keys = []
    for episode in episodes:
        asked[episode.query, episode.name] += 1
        again = asked[episode.query, episode.name]
        keys.append(f"{split}/{episode.query}__{episode.name.replace(' ', '_')}" + f"__{again}" * (again > 1))
    return keys


def all_episodes(images_by_class: ImageIdsByClass) -> list[Episode]:
    """One episode by text for each image and name it shows, ordered by image.

    Args:
        images_by_class: name -> the images that show it.
    """
    pairs = sorted((image_id, rank, name) for rank, (name, images) in enumerate(images_by_class.items()) for image_id in images)
    return [Episode(query=image_id, name=name) for image_id, _, name in pairs]


def draw_episodes(images_by_class: ImageIdsByClass, rng: np.random.Generator) -> Iterator[Episode]:
    """Draw without end: a class, then its query and another image as support, each as likely.

    Args:
        images_by_class: name -> the images that show it, at least two.
        rng: source of the draws.
    """
    names = list(images_by_class)
    while True:
        name = names[int(rng.integers(len(names)))]
        images = images_by_class[name]
        query = images[int(rng.integers(len(images)))]
        yield Episode(query=query, name=name, support=draw_support(images, query, rng))


def draw_support(images: Sequence[str], query: str, rng: np.random.Generator) -> str:
    """Draw one of `images` that is not the query, each as likely."""
    support = query
    while support == query:
        support = images[int(rng.integers(len(images)))]
    return support


def too_few(name: str, where: str) -> ClipSegError:
    """The error that a class cannot be shown by another image."""
    return ClipSegError(
        f"{where}: class {name!r} has fewer than two images, and so no support; leave it out or take more images"
    )


def read_episodes(
    path: str | Path, source: MaskSource, names: Collection[str], about: Mapping[str, str | int]
) -> list[Episode]:
    """Read what `EpisodeReader.save` wrote, or somebody else's draws in the same form.

    Args:
        path: the file. Images may be named with folder and ending.
        source: must show what the episodes name.
        names: the classes that may be asked for.
        about: what the file must say of itself, such as benchmark, split and fold.

    Raises:
        ClipSegError: missing, damaged, of another benchmark, split or fold, or of other data.
    """
    content = read_json(path)
    entries = content.get("episodes") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ClipSegError(f"{path}: not a file of episodes; expected a list under 'episodes'")
    for field, value in about.items():
        if content.get(field) != value:
            found = reprlib.repr(content.get(field))
            raise ClipSegError(f"{path}: episodes of {field} {found}, but asked for is {value!r}; draw new ones")
    return [_read_episode(entry, source, names, f"{path}: episode {number}") for number, entry in enumerate(entries)]


def _read_episode(entry: Any, source: MaskSource, names: Collection[str], where: str) -> Episode:
    if not isinstance(entry, dict) or not {"query", "name", "support"} <= entry.keys():
        raise ClipSegError(f"{where}: expected an object of query, name and support; draw new episodes")
    name = entry["name"]
    if not isinstance(name, str) or name not in names:
        raise ClipSegError(f"{where}: class {reprlib.repr(name)} is none of {', '.join(names)}; draw new episodes")
    query, support = (_shown(entry, role, source, name, where) for role in ("query", "support"))
    if query == support:
        raise ClipSegError(f"{where}: image {query!r} is its own support; draw new episodes")
    return Episode(query=query, name=name, support=support)


def _shown(entry: Mapping[str, Any], role: str, source: MaskSource, name: str, where: str) -> str:
    """The image of an entry, which must show `name`."""
    image_id = as_image_id(entry[role])
    if image_id not in source.image_ids:
        raise ClipSegError(f"{where}: {role} image {reprlib.repr(entry[role])} is not in this split; draw new episodes")
    (mask,), _ = source.read_masks(image_id, [name])
    if not mask.any():
        raise ClipSegError(f"{where}: {role} image {image_id!r} does not show {name!r}; draw new episodes")
    return image_id


def as_image_id(name: Any) -> str:
    """The id of an image that a file names with or without folder and ending; what is no text names none."""
    return PurePosixPath(name).stem if isinstance(name, str) else ""
