"""Items of every reader: a `Sample` is one image with the tasks asked of it; a `Batch` is several of them, as named fields.

Pixels stay uint8 and at their own size here; they are resized and normalised batched, on the device (`network/preprocess.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg.ragged import Ragged, pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Another image that shows what a task asks for: the visual prompt of one-shot segmentation and of PhraseCut+.

    Attributes:
        image: uint8 RGB `[3, H, W]`.
        mask: uint8 `[H, W]`, 1 on the object; where it is empty, all is background.
    """

    image: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to segment in an image.

    Attributes:
        key: stable over runs, machines and orders, e.g. "test/2335__1": results are aligned by it.
        phrase: the bare phrase; templates are put around it later.
        synonyms: all phrases that mean the same, where there are several; `prompt.ensemble` takes the mean over them.
        mask: uint8 `[H, W]` of the image's size, 1 inside the target.
        group: the class over which mIoU averages; on PhraseCut each task is its own (its key).
        seed: of every choice still to be made for this task (its template, its mix), a function of (seed, epoch, item).
        support: its visual prompt; None where text alone counts.
        blank: its visual prompt shows nothing: the prompt image is 0 everywhere, after normalisation.
        subsets: named parts of the data set it belongs to, which are scored on their own (`data/subsets.py`).
        official: as mask, by the rule of the data set's own evaluator, for its official figures; None: the mask is that too.
    """

    key: str
    phrase: str
    mask: Tensor
    group: str
    seed: int
    support: Support | None = None
    blank: bool = False
    synonyms: tuple[str, ...] = ()
    subsets: tuple[str, ...] = ()
    official: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image and its tasks.

    Attributes:
        image_key: stable name of the image, e.g. "2335".
        image: uint8 RGB `[3, H, W]`.
        tasks: at least one; none where an image is looked at as a whole (`image_classes.py`).
        valid: uint8 `[H, W]`, 0 where the annotators left open what a pixel shows and it is not counted; None: all count.
    """

    image_key: str
    image: Tensor
    tasks: Sequence[Task]
    valid: Tensor | None = None


class Reader(Protocol):
    """Any data set that training and evaluation take.

    Attributes:
        image_ids: `[I]`, numbers or strings; where an item is one whole image, item i is `image_ids[i]`.
    """

    image_ids: NDArray[Any]

    def __len__(self) -> int:
        """The number of items."""

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        """The item `(epoch, item)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B images with N tasks in all; image sizes may differ. All pixels lie in one buffer, and so move by one copy.

    Attributes:
        images: B tensors, uint8 `[3, H_b, W_b]`.
        image_keys: B names.
        image_index: int64 `[N]`, which image each task asks about.
        keys, phrases, groups: N strings each.
        synonyms: N tuples of all phrases of a task.
        masks: N tensors, uint8 `[H, W]` of their image's size.
        seeds: N integers.
        support_index: int64 `[M]`, the tasks that have a support.
        support_images, support_masks: these M supports.
        blank_index: int64 `[K]`, the tasks whose visual prompt shows nothing.
        subsets: of each task, the named parts of the data set it belongs to.
        official: N masks as the data set's own evaluator has them.
        valid: B maps, uint8 `[H_b, W_b]`, 0 where a pixel is not counted; none at all where every pixel counts.
    """

    images: Ragged
    image_keys: list[str]
    image_index: Tensor
    keys: list[str]
    phrases: list[str]
    synonyms: list[tuple[str, ...]]
    groups: list[str]
    masks: Ragged
    seeds: list[int]
    support_index: Tensor
    support_images: Ragged
    support_masks: Ragged
    blank_index: Tensor
    subsets: list[tuple[str, ...]]
    official: Ragged
    valid: Ragged

    def __len__(self) -> int:
        """The number of tasks, N."""
        return len(self.keys)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`; copies from pinned memory do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory (called by `DataLoader(pin_memory=True)`)."""
        return self._map(Tensor.pin_memory)

    def record_stream(self, stream: "torch.cuda.Stream") -> None:
        """Tell the GPU's allocator that the batch, which was copied by another stream, is used by this one."""
        for tensor in (self.images.buffer, self.image_index, self.support_index, self.blank_index):
            tensor.record_stream(stream)

    def _map(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        pixels = move(self.images.buffer)
        moved: dict[str, Any] = {name: getattr(self, name).to(pixels) for name in _PIXELS}
        moved |= {name: move(getattr(self, name)) for name in ("image_index", "support_index", "blank_index")}
        return replace(self, **moved)


_PIXELS = ("images", "masks", "official", "support_images", "support_masks", "valid")


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples into a batch; tasks keep the order of their samples."""
    tasks = [(b, task) for b, sample in enumerate(samples) for task in sample.tasks]
    supports = [(n, task.support) for n, (_, task) in enumerate(tasks) if task.support is not None]
    everywhere = all(sample.valid is None for sample in samples)
    pixels = (
        [sample.image for sample in samples],
        [task.mask for _, task in tasks],
        [task.mask if task.official is None else task.official for _, task in tasks],
        [support.image for _, support in supports],
        [support.mask for _, support in supports],
        [] if everywhere else [torch.ones_like(s.image[0]) if s.valid is None else s.valid for s in samples],
    )
    return Batch(
        **dict(zip(_PIXELS, pack(pixels), strict=True)),
        image_keys=[sample.image_key for sample in samples],
        image_index=torch.tensor([b for b, _ in tasks], dtype=torch.int64),
        keys=[task.key for _, task in tasks],
        phrases=[task.phrase for _, task in tasks],
        synonyms=[task.synonyms or (task.phrase,) for _, task in tasks],
        groups=[task.group for _, task in tasks],
        seeds=[task.seed for _, task in tasks],
        support_index=torch.tensor([n for n, _ in supports], dtype=torch.int64),
        blank_index=torch.tensor([n for n, (_, task) in enumerate(tasks) if task.blank], dtype=torch.int64),
        subsets=[task.subsets for _, task in tasks],
    )
