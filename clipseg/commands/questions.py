"""What `clipseg predict` asks of every photo, and what it makes of the answer: maps, masks, numbers. Writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

_TOUCHING = np.ones((3, 3))  # pixels that share a corner are one component
_SUREST = 1 - 1e-6  # float32 tells no finite odds of 1


@dataclass(frozen=True, kw_only=True)
class Question:
    """N prompts, and what to do with their maps.

    Attributes:
        names: of the prompts, N.
        rest: texts whose maps come after theirs: those to subtract, or the background.
        joined: one map for all prompts.
        contrast: the prompts and the one text of `rest`, the background, share every pixel by a softmax.
        threshold: above which a pixel is in a mask; None with `contrast`.
        own: the thresholds of titles that have one of their own.
        min_area: part of the image; smaller components are no part of a mask.
        components: whether numbers tell of them.
    """

    names: Sequence[str]
    rest: Sequence[str]
    joined: bool
    contrast: bool
    threshold: float | None
    min_area: float
    components: bool
    own: Mapping[str, float] = field(default_factory=dict)

    def titles(self) -> list[str]:
        """Return what each map shows."""
        names = [" + ".join(self.names)] if self.joined else self.names
        return list(names) if self.contrast else [" − ".join([name, *self.rest]) for name in names]

    def combine(self, probabilities: Tensor) -> Tensor:
        """Contrast, or join and subtract, the maps of prompts and rest, `[N + M, H, W]` -> `[N, H, W]`, or `[1, H, W]`."""
        maps, rest = probabilities[: len(self.names)], probabilities[len(self.names) :]
        if self.contrast:  # the softmax of logits, whose exponentials are the odds
            odds = probabilities.clamp(max=_SUREST)
            odds = odds / (1 - odds)
            return (odds / odds.sum(dim=0).clamp(min=torch.finfo(odds.dtype).tiny))[: len(maps)]
        if self.joined:
            maps = maps.amax(dim=0, keepdim=True)
        return (maps - rest.sum(dim=0)).clamp(min=0)

    def masks(self, maps: Tensor) -> NDArray[np.bool_]:
        """Cut the maps of `combine`, `[N, H, W]`: at the threshold, or to where each is the largest, background included."""
        values = maps.numpy()
        if self.threshold is None:
            background = 1 - values.sum(axis=0, keepdims=True)
            masks = np.concatenate([background, values]).argmax(axis=0) == np.arange(1, len(values) + 1)[:, None, None]
        else:
            cuts = np.array([self.own.get(title, self.threshold) for title in self.titles()], dtype=np.float32)
            masks = values > cuts[:, None, None]
        return np.stack([without_specks(mask, self.min_area) for mask in masks])

    def numbers(self, values: Tensor, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Return area as a part of the image, box in pixels (None: empty mask), and mean probability over the image."""
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if len(rows) else None
        mean = values.mean(dtype=torch.float64).item()
        found: dict[str, Any] = {"area": round(float(mask.mean()), 6), "box": box, "mean_probability": round(mean, 6)}
        return found | ({"components": components(mask)} if self.components else {})


def without_specks(mask: NDArray[np.bool_], min_area: float) -> NDArray[np.bool_]:
    """Return a mask `[H, W]` less its components that are smaller than a part of the image."""
    if not min_area:
        return mask
    labels, _ = ndimage.label(mask, _TOUCHING)
    is_kept = np.bincount(labels.ravel()) >= min_area * mask.size
    is_kept[0] = False
    return np.asarray(is_kept[labels])


def components(mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the connected parts of a mask `[H, W]`, the largest first.

    Returns:
        of each its area as a part of the image, its box `[x0, y0, x1, y1]`, and the point `[x, y]` in it that is farthest from
        its edge, in pixels: what SAM takes as box and as a positive point.
    """
    labels, _ = ndimage.label(mask, _TOUCHING)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[rows, columns] == number
        depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        box = [columns.start, rows.start, columns.stop, rows.stop]
        point = [columns.start + int(x), rows.start + int(y)]
        found.append({"area": round(int(inside.sum()) / mask.size, 6), "box": box, "point": point})
    return sorted(found, key=lambda part: -part["area"])


def label_map(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return N masks that do not meet as one map: 0 for none, n for the n-th."""
    return (masks * np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None]).max(axis=0)
