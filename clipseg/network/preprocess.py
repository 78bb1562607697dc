"""Pixels -> the network's input, and masks -> its targets: resize and normalise, on whatever device the pixels are on.

A photo is squashed to the network's size, as PhraseCut's are; squashed with antialiasing, as COCO-20i's; or laid on a black
canvas of that size, its aspect nearly kept and never enlarged, as Pascal-5i's (docs/paper.md, Sec. 2 and 5).
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipseg.ragged import Ragged, send

# The paper's code normalises with ImageNet's statistics, not CLIP's own, for query images and visual prompts alike.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Resize = Literal["squash", "antialias", "canvas"]

_MULTIPLE = 8  # of pixels are the sides of what does not fit on a canvas as it is
_BITS = 22  # of Pillow's weights


def prepare_images(images: Sequence[Tensor], size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """Bring photos of any size to one size and normalise them: `normalise` of `resize_images`."""
    return normalise(resize_images(images, size, resize=resize))


def resize_images(images: Sequence[Tensor], size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """Bring photos of any size to one size (docs/paper.md, Sec. 2), all by a dozen operations that wait for nothing.

    Args:
        images: B tensors, uint8 RGB `[3, H_b, W_b]`.
        size: (H, W) in pixels.
        resize: how they come to it.

    Returns:
        float32 in [0, 1] `[B, 3, H, W]`; bilinear: squashed with corners aligned, on a canvas by half-pixel centres.
    """
    photos = Ragged.of(images)
    if resize == "antialias":
        return _antialiased(photos, size).float() / 255
    device, own, inner = photos.buffer.device, photos.sides, _inner_sizes(photos, size, resize)
    rule: Rule = "corners" if resize == "squash" else "centres"
    places = [_places(*axis, rule) for axis in zip(own, inner, size, strict=True)]
    (first_y, first_x), (last_y, last_x) = ([np.floor(place).astype(np.int64) for place in places], own[:, :, None] - 1)
    down, right = (place - np.floor(place) for place in places)
    above, below = photos.rows(np.hstack([first_y, np.minimum(first_y + 1, last_y)])).float().chunk(2, dim=2)
    rows = torch.lerp(above, below, send(down[:, None, :, None], device))
    before, behind = _columns(rows, np.hstack([first_x, np.minimum(first_x + 1, last_x)])).chunk(2, dim=3)
    pixels = torch.lerp(before, behind, send(right[:, None, None], device)) / 255
    return pixels if resize == "squash" else pixels * _inside(inner, size, device)


def _antialiased(photos: Ragged, size: tuple[int, int]) -> Tensor:
    """Squash as Pillow's BILINEAR did, bit for bit: whole numbers, columns first, rounded after each: uint8 `[B, 3, *size]`."""
    heights, widths = photos.sides
    pixels = photos.rows(np.minimum(np.arange(heights.max()), heights[:, None] - 1))
    for axis, own, new in ((3, widths, size[1]), (2, heights, size[0])):
        shape = [-1, 1, 1, 1]
        shape[axis] = new
        total: Tensor | int = 1 << _BITS - 1
        for places, weights in _taps(tuple(own.tolist()), new):
            at, by = (send(table, pixels.device).view(shape) for table in (places, weights))
            expanded = [*pixels.shape]
            expanded[axis] = new
            total = total + pixels.gather(axis, at.expand(expanded)).int() * by
        pixels = (torch.as_tensor(total) >> _BITS).clamp(0, 255).byte()
    return pixels


def _taps(own: tuple[int, ...], new: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Yield for each pixel that may count which one it is and its weight in units of 2 ** -22, both `[B, new]`."""
    scale = np.array(own)[:, None] / new
    support = np.maximum(scale, 1)
    centres = (np.arange(new) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), np.array(own)[:, None]) - 1
    places = [first + tap for tap in range(math.ceil(support.max()) * 2 + 1)]
    weights = [np.maximum(1 - np.abs((at - centres + 0.5) * (1 / support)), 0) * (at <= last) for at in places]
    whole = functools.reduce(np.add, weights)
    for at, weight in zip(places, weights, strict=True):
        yield np.minimum(at, last), (0.5 + weight / whole * (1 << _BITS)).astype(np.int32)


def _inner_sizes(pictures: Ragged, size: tuple[int, int], resize: Resize) -> NDArray[np.int64]:
    """How much of `size` each picture takes, from the upper left corner on: heights and widths, `[2, B]`."""
    return np.array([_inner_size(shape[-2:], size, resize) for shape in pictures.shapes]).reshape(-1, 2).T


def _inner_size(own: Sequence[int], size: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """How much of `size` a picture of its own size (H, W) takes, from the upper left corner on."""
    if resize != "canvas":
        return size
    height, width = own
    longer, side = max(own), min(size)
    if longer > side:
        fitting = (side if n == longer else int(n * (side / longer)) for n in (height, width))
        height, width = (max(_MULTIPLE, n // _MULTIPLE * _MULTIPLE) for n in fitting)
    return height, width


# Where a place lies in what it shows: the ends meet, pixels have half-pixel centres, or corners; and as OpenCV counts those.
Rule = Literal["corners", "centres", "nearest", "opencv"]


def _places(own: NDArray[np.int64], inner: NDArray[np.int64], size: int, rule: Rule) -> NDArray[Any]:
    """Where along B axes of `own` length each of `size` places lies, of which `inner` are taken: `[B, size]`.

    Computed in float32 as torch does, in float64 as OpenCV does, since a place between two pixels may fall to either.
    """
    ends, steps = (own - 1, np.maximum(inner - 1, 1)) if rule == "corners" else (own, inner)
    scale: NDArray[Any] = 1 / (inner / own) if rule == "opencv" else ends.astype(np.float32) / steps.astype(np.float32)
    places = np.arange(size).astype(scale.dtype)
    if rule == "corners":
        scale[inner == 1] = 0
    half = np.float32(0.5 if rule == "centres" else 0)
    return np.clip(scale[:, None] * (places + half) - half, 0, (own - 1).astype(scale.dtype)[:, None])


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
    """N masks, uint8 `[H_n, W_n]` -> uint8 `[N, *size]`, nearest; beside what lies on a canvas 0: nothing to find."""
    ragged = Ragged.of(masks)
    inner = _inner_sizes(ragged, size, resize)
    rule: Rule = "opencv" if resize == "canvas" else "nearest"
    rows, columns = (_places(*axis, rule).astype(np.int64) for axis in zip(ragged.sides, inner, size, strict=True))
    resized = _columns(ragged.rows(rows), columns)
    return (resized * _inside(inner, size, resized.device) if resize == "canvas" else resized).squeeze(1)


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
    """Maps `[N, S, S]` -> `[N, *size]`, bilinear: predictions at an image's own size.

    Of a canvas all of it, padding included, is stretched over a square of the longer side, corners aligned: that is how
    Pascal-5i was counted (docs/paper.md, Sec. 5). Other maps have half-pixel centres.
    """
    on_canvas = resize == "canvas"
    whole = (max(size), max(size)) if on_canvas else size
    if probabilities.shape[-2:] != whole:
        probabilities = F.interpolate(probabilities[:, None], size=whole, mode="bilinear", align_corners=on_canvas)[:, 0]
    return probabilities[:, : size[0], : size[1]]
