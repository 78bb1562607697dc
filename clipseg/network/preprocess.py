"""Pixels -> the network's input, and masks -> its targets: resize and normalise, on whatever device the pixels are on.

A photo is squashed to the network's size, or fitted into it: its aspect kept, its longer side resized to that size, the rest
padded at the bottom and on the right with the mean colour (zero after normalisation).
"""

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipseg.ragged import Ragged, send

# The paper's code normalises with ImageNet's statistics, not CLIP's own, for query images and visual prompts alike.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Resize = Literal["squash", "pad"]


def prepare_images(images: Sequence[Tensor], size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """Bring photos of any size to one size and normalise them: `normalise` of `resize_images`."""
    return normalise(resize_images(images, size, resize=resize))


def resize_images(images: Sequence[Tensor], size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """Bring photos of any size to one size (docs/paper.md, Sec. 2), all by a dozen operations that wait for nothing.

    Args:
        images: B tensors, uint8 RGB `[3, H_b, W_b]`.
        size: (H, W) in pixels.
        resize: whether they are squashed, or keep their aspect and are padded.

    Returns:
        float32 in [0, 1] `[B, 3, H, W]`; bilinear with corners aligned and without antialiasing, as released.
    """
    photos = Ragged.of(images)
    device, own, inner = photos.buffer.device, photos.sides, _inner_sizes(photos, size, resize)
    places = [_places(*axis, corners=True) for axis in zip(own, inner, size, strict=True)]
    (first_y, first_x), (last_y, last_x) = ([np.floor(place).astype(np.int64) for place in places], own[:, :, None] - 1)
    down, right = (place - np.floor(place) for place in places)
    above, below = photos.rows(np.hstack([first_y, np.minimum(first_y + 1, last_y)])).float().chunk(2, dim=2)
    rows = torch.lerp(above, below, send(down[:, None, :, None], device))
    before, behind = _columns(rows, np.hstack([first_x, np.minimum(first_x + 1, last_x)])).chunk(2, dim=3)
    pixels = torch.lerp(before, behind, send(right[:, None, None], device)) / 255
    if resize == "squash":
        return pixels
    mean, _ = _statistics(device)
    return torch.where(_inside(inner, size, device), pixels, mean)


def _inner_sizes(pictures: Ragged, size: tuple[int, int], resize: Resize) -> NDArray[np.int64]:
    """How much of `size` each picture takes, from the upper left corner on: heights and widths, `[2, B]`."""
    return np.array([_inner_size(shape[-2:], size, resize) for shape in pictures.shapes]).reshape(-1, 2).T


def _inner_size(own: Sequence[int], size: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """How much of `size` a picture of its own size (H, W) takes, from the upper left corner on."""
    if resize == "squash":
        return size
    scale = min(size[0] / own[0], size[1] / own[1])
    return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))


def _places(own: NDArray[np.int64], inner: NDArray[np.int64], size: int, *, corners: bool) -> NDArray[np.float32]:
    """Where along B axes of `own` length each of `size` places lies, of which `inner` are taken: float32 `[B, size]`.

    Computed in float32 as torch does, since a place between two pixels may fall to either.
    """
    ends, steps = (own - 1, np.maximum(inner - 1, 1)) if corners else (own, inner)
    scale = ends.astype(np.float32) / steps.astype(np.float32)
    if corners:
        scale[inner == 1] = 0
    return np.minimum(scale[:, None] * np.arange(size, dtype=np.float32), (own - 1).astype(np.float32)[:, None])


def _columns(rows: Tensor, wanted: NDArray[np.int64]) -> Tensor:
    """K columns `[B, K]` of `[B, C, H, W]` -> `[B, C, H, K]`."""
    return rows.gather(3, send(wanted[:, None, None], rows.device).expand(-1, *rows.shape[1:3], -1))


def _inside(inner: NDArray[np.int64], size: tuple[int, int], device: torch.device) -> Tensor:
    """Which pixels of `size` are no padding, bool `[B, 1, *size]`."""
    rows, columns = (np.arange(side) < taken[:, None] for side, taken in zip(size, inner, strict=True))
    return send(rows[:, None, :, None] & columns[:, None, None], device)


def normalise(images: Tensor) -> Tensor:
    """float `[..., 3, H, W]` in [0, 1] -> zero mean and unit variance a channel, by ImageNet's statistics."""
    mean, std = _statistics(images.device)
    return (images - mean) / std


@functools.cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each `[3, 1, 1]`: kept, since bringing them to a GPU would wait for all it has to do."""
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device)[:, None, None] for values in (MEAN, STD))
    return mean, std


def resize_masks(masks: Sequence[Tensor], size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """N masks, uint8 `[H_n, W_n]` -> uint8 `[N, *size]`, nearest; padding is 0: nothing to find, and not valid."""
    ragged = Ragged.of(masks)
    inner = _inner_sizes(ragged, size, resize)
    axes = zip(ragged.sides, inner, size, strict=True)
    rows, columns = (_places(*axis, corners=False).astype(np.int64) for axis in axes)
    resized = _columns(ragged.rows(rows), columns)
    return (resized if resize == "squash" else resized * _inside(inner, size, resized.device)).squeeze(1)


def resize_objects(masks: Sequence[Tensor], size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """The masks of visual prompts, as `resize_masks`, but an object that falls between the samples is kept.

    Then a pixel is the largest of all that lie in its part of the mask. Their number is a difference of sums over rectangles,
    which takes as many operations for any sizes, and nobody asks the device which masks need it.
    """
    ragged = Ragged.of(masks)
    nearest = resize_masks(ragged, size, resize=resize)
    (heights, _), inner, device = ragged.sides, _inner_sizes(ragged, size, resize), ragged.buffer.device
    whole = ragged.rows(np.minimum(np.arange(heights.max()), heights[:, None] - 1)).squeeze(1)
    sums = F.pad(whole.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32), (1, 0, 1, 0))
    for axis, (own, taken, side) in enumerate(zip(ragged.sides[:, :, None], inner[:, :, None], size, strict=True), start=1):
        places = np.arange(side)
        edges = np.minimum(np.hstack([places * own // taken, -(-(places + 1) * own // taken)]), own)  # none of padding
        edges, shape = (edges[:, :, None], (-1, -1, sums.shape[2])) if axis == 1 else (edges[:, None], (-1, sums.shape[1], -1))
        start, stop = sums.gather(axis, send(edges, device).expand(shape)).chunk(2, dim=axis)
        sums = stop - start
    return torch.where(nearest.amax((1, 2), keepdim=True).bool(), nearest, sums > 0)


def resize_probabilities(probabilities: Tensor, size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """Maps `[N, H, W]` -> `[N, *size]`, bilinear, corners not aligned: predictions at an image's own size, without padding."""
    height, width = _inner_size(size, (probabilities.shape[1], probabilities.shape[2]), resize)
    inner = probabilities[:, :height, :width]
    if inner.shape[-2:] == size:
        return inner
    return F.interpolate(inner[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
