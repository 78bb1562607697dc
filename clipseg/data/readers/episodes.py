"""Fixed tasks on whole images: this image, this class or prompt, shown by that support image; from a seed, or from a file.

The reader of every benchmark whose masks belong to classes: Pascal-5i, COCO-20i, and the prompts on LVIS.
"""

import reprlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from clipseg.data.sample import Sample, Support, Task
from clipseg.errors import ClipSegError
from clipseg.files import read_json, write_json

ImageIdsByClass = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One task: find `name` in the image `query`; `support` is the image that shows it, None where text alone asks."""

    query: str
    name: str
    support: str | None = None


class MaskSource(Protocol):
    """Photos with a mask for each of some names."""

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
        self._about = dict(about)
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
        item = index[1] if isinstance(index, tuple) else index
        if not 0 <= item < len(self):
            raise IndexError(f"item {item} of {len(self)}")
        query = str(self.image_ids[item])
        numbers = self._numbers[query]
        masks, valid = self._source.read_masks(query, [self.episodes[number].name for number in numbers])
        tasks = [self._task(number, mask) for number, mask in zip(numbers, masks, strict=True)]
        return Sample(image_key=query, image=self._source.read_image(query), tasks=tasks, valid=valid)

    def _task(self, number: int, mask: Tensor) -> Task:
        episode = self.episodes[number]
        seed = int(np.random.default_rng((self.seed, number)).integers(2**63))
        shown = self.visual_support and episode.support is not None
        support = self._support(str(episode.support), episode.name) if shown else None
        return Task(key=self._keys[number], phrase=episode.name, mask=mask, group=episode.name, seed=seed, support=support)

    def _support(self, image_id: str, name: str) -> Support:
        (mask,), _ = self._source.read_masks(image_id, [name])
        if not mask.any():
            raise ClipSegError(f"support image {image_id}: its mask of {name!r} is empty; draw the episodes again")
        return Support(image=self._source.read_image(image_id), mask=mask)

    def save(self, path: str | Path) -> None:
        """Write the episodes as JSON, under what they are of, so that a score can be repeated; `read_episodes` reads them."""
        write_json(path, {**self._about, "seed": self.seed, "episodes": [asdict(episode) for episode in self.episodes]})


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


def with_supports(episodes: Sequence[Episode], images_by_class: ImageIdsByClass, *, seed: int, where: str) -> list[Episode]:
    """The same episodes, each with another image of its class, drawn from `seed`.

    Raises:
        ClipSegError: a class has one image.
    """
    rng = np.random.default_rng(seed)
    return [
        Episode(query=episode.query, name=episode.name, support=others[int(rng.integers(len(others)))])
        for episode in episodes
        for others in [_others(episode, images_by_class, where)]
    ]


def _others(episode: Episode, images_by_class: ImageIdsByClass, where: str) -> list[str]:
    others = [image_id for image_id in images_by_class[episode.name] if image_id != episode.query]
    if not others:
        raise _too_few(episode.name, where)
    return others


def draw_episodes(
    images_by_class: ImageIdsByClass, is_empty: Callable[[str, str], bool], *, count: int, seed: int, where: str
) -> list[Episode]:
    """`count` episodes from `seed`: a class, and of the images that show it a query and another as support.

    Args:
        images_by_class: name -> the images that show it.
        is_empty: whether the mask of a name in an image has no pixel, as those of specks; such images are not drawn.
        count: how many episodes.
        seed: of all that is drawn.
        where: how errors call the data.

    Raises:
        ClipSegError: a class has fewer than two images.
    """
    rng = np.random.default_rng(seed)
    names = list(images_by_class)
    episodes = []
    for _ in range(count):
        name = names[int(rng.integers(len(names)))]
        images = (images_by_class[name][i] for i in rng.permutation(len(images_by_class[name])).tolist())
        drawn = [image_id for image_id, _ in zip((i for i in images if not is_empty(i, name)), range(2), strict=False)]
        if len(drawn) < 2:
            raise _too_few(name, where)
        episodes.append(Episode(query=drawn[0], name=name, support=drawn[1]))
    return episodes


def _too_few(name: str, where: str) -> ClipSegError:
    return ClipSegError(
        f"{where}: class {name!r} has fewer than two images, and so no support; leave it out or take more images"
    )


def read_episodes(path: str | Path, images_by_class: ImageIdsByClass, about: Mapping[str, str | int]) -> list[Episode]:
    """Read what `EpisodeReader.save` wrote.

    Args:
        path: the file.
        images_by_class: name -> the images that show it; an episode of others does not fit the data.
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
    shows = {name: frozenset(images) for name, images in images_by_class.items()}
    return [_read_episode(entry, shows, f"{path}: episode {number}") for number, entry in enumerate(entries)]


def _read_episode(entry: Any, shows: Mapping[str, frozenset[str]], where: str) -> Episode:
    if not isinstance(entry, dict) or entry.keys() != {"query", "name", "support"}:
        raise ClipSegError(f"{where}: expected an object of query, name and support; draw new episodes")
    query, name, support = entry["query"], entry["name"], entry["support"]
    if not isinstance(name, str) or name not in shows:
        raise ClipSegError(f"{where}: class {reprlib.repr(name)} is none of {', '.join(shows)}; draw new episodes")
    for role, image_id in (("query", query), ("support", support)):
        if not isinstance(image_id, str) or image_id not in shows[name]:
            raise ClipSegError(
                f"{where}: {role} image {reprlib.repr(image_id)} does not show {name!r} in this data; draw new episodes"
            )
    if query == support:
        raise ClipSegError(f"{where}: image {query!r} is its own support; draw new episodes")
    return Episode(query=query, name=name, support=support)
