"""Training on drawn episodes: a class, an image of it that is asked, another that shows it."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers.coco_labels import CocoLabels, label_of
from clipseg.data.readers.episodes import Episode, ImageIdsByClass, draw_episodes, draw_support
from clipseg.data.sample import Sample, Support, Task
from clipseg.data.sampling import split_index
from clipseg.errors import ClipSegError

TRIES = 20


class ClassDraws(Dataset[Sample]):
    """As many draws an epoch as there are images: a class, of its images a query and supports, each as likely; no crop.

    Item i of epoch e is a pure function of (seed, e, i).

    Args:
        source: photos and masks.
        images_by_class: class -> its images, at least two.
        options: with several phrases an image, so many supports are drawn for a query; `negatives` is how often a support is an
            image of another class with an empty mask, phrase and target staying true, as released (docs/paper.md, Sec. 5).
        split: the first part of every key.
        sound_negatives: instead, a negative asks for a class that the query does not show, with an empty target; a query that
            shows all of them stays as it is.

    Attributes:
        image_ids: str `[I]`, the images listed.

    Raises:
        ClipSegError: negatives that can change nothing.
    """

    def __init__(
        self,
        source: CocoLabels,
        images_by_class: ImageIdsByClass,
        options: ReaderOptions,
        *,
        split: str,
        sound_negatives: bool = False,
    ) -> None:
        if options.negatives and not (options.visual_support or sound_negatives):
            raise ClipSegError(
                f"data.negatives={options.negatives}: on COCO-20i they change the support, and data.visual_support=false gives "
                "none; set data.negatives=0, or protocol=paper"
            )
        if options.negatives and len(images_by_class) < 2:
            raise ClipSegError(f"{source.where}: one class is listed, and so no negatives; set data.negatives=0")
        self._source = source
        self._images_by_class = images_by_class
        self._options = options
        self._split = split
        self._sound_negatives = sound_negatives
        self.image_ids = np.array(sorted({image_id for images in images_by_class.values() for image_id in images}))

    def __len__(self) -> int:
        """The number of draws in an epoch."""
        return len(self.image_ids)

    def __getitem__(self, index: tuple[int, int] | int) -> Sample:
        """Draw and read one query with its tasks.

        Args:
            index: `(epoch, item)`, as `StreamSampler` yields; a bare item is one of epoch 0.

        Raises:
            ClipSegError: a photo or a mask is damaged, gone, or not of the annotated size.
        """
        epoch, item = split_index(index, len(self))
        rng = np.random.default_rng(np.random.SeedSequence(self._options.seed, spawn_key=(epoch, item)))
        episode = next(draw_episodes(self._images_by_class, rng))
        labels = self._source.read_labels(episode.query)
        tasks = [self._task(episode, labels, rng) for _ in range(self._options.phrases_per_image)]
        return Sample(image_key=episode.query, image=self._source.read_image(episode.query), tasks=tasks)

    def _task(self, episode: Episode, labels: Tensor, rng: np.random.Generator) -> Task:
        """The query asked for its class by a support of its own, or what a negative makes of it."""
        name, query = episode.name, episode.query
        mask = (labels == label_of(name)).byte()
        phrase, support = name, None
        is_negative = self._options.negatives > 0 and rng.random() < self._options.negatives
        if is_negative and self._sound_negatives:
            absent = [other for other in self._images_by_class if label_of(other) not in labels]
            if absent:
                phrase, mask = str(rng.choice(absent)), torch.zeros_like(mask)
        if is_negative and not self._sound_negatives:
            other = next(draw for draw in draw_episodes(self._images_by_class, rng) if draw.name != name)
            image = self._source.read_image(str(other.support))
            support = Support(image=image, mask=torch.zeros_like(image[0]))
        elif self._options.visual_support:
            support = self._support(phrase, query, rng)
        return Task(
            key=f"{self._split}/{query}__{name.replace(' ', '_')}",
            phrase=phrase,
            mask=mask,
            group=name,
            seed=int(rng.integers(2**63)),
            support=support,
        )

    def _support(self, name: str, query: str, rng: np.random.Generator) -> Support:
        """Another image of a class; one in which smaller things hide it is drawn again."""
        for _ in range(TRIES):
            image_id = draw_support(self._images_by_class[name], query, rng)
            (mask,), _ = self._source.read_masks(image_id, [name])
            if mask.any():
                return Support(image=self._source.read_image(image_id), mask=mask)
        raise ClipSegError(f"{self._source.where}: most images listed for {name!r} do not show it; take other lists or labels")
