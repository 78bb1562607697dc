"""Pixels -> the network's input, and masks -> its targets: resize and normalise, on whatever device the pixels are on.

A photo is squashed to the network's size, or fitted into it: its aspect kept, its longer side resized to that size, the rest
padded at the bottom and on the right with the mean colour (zero after normalisation).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# The paper's code normalises with ImageNet's statistics, not CLIP's own, for query images and visual prompts alike.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Resize = Literal["squash", "pad"]


def prepare_images(images: Sequence[Tensor], size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """Bring photos of any size to one size and normalise them (docs/paper.md, Sec. 2).

    Args:
        images: B tensors, uint8 RGB `[3, H_b, W_b]`.
        size: (H, W) in pixels.
        resize: whether they are squashed, or keep their aspect and are padded.

    Returns:
        float32 `[B, 3, H, W]`; bilinear with corners aligned and without antialiasing, as released.
    """
    return normalise(torch.stack([resize_image(image, size, resize=resize) for image in images]))


def resize_image(image: Tensor, size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """uint8 `[3, H, W]` -> float32 in [0, 1] `[3, *size]`, bilinear, corners aligned, no antialiasing."""
    height, width = _inner_size(image.shape[-2:], size, resize)
    pixels = image[None].float()
    if image.shape[-2:] != (height, width):
        pixels = F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=True)
    pixels = pixels[0] / 255
    if (height, width) == size:
        return pixels
    canvas = torch.tensor(MEAN, device=image.device)[:, None, None].repeat(1, *size)
    canvas[:, :height, :width] = pixels
    return canvas


def _inner_size(own: Sequence[int], size: tuple[int, int], resize: Resize) -> tuple[int, int]:
    """How much of `size` a picture of its own size (H, W) takes, from the upper left corner on."""
    if resize == "squash":
        return size
    scale = min(size[0] / own[0], size[1] / own[1])
    return max(1, round(own[0] * scale)), max(1, round(own[1] * scale))


def normalise(images: Tensor) -> Tensor:
    """float `[..., 3, H, W]` in [0, 1] -> zero mean and unit variance a channel, by ImageNet's statistics."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def resize_masks(masks: Sequence[Tensor], size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """N masks, uint8 `[H_n, W_n]` -> uint8 `[N, *size]`, nearest; padding is 0: nothing to find, and not valid."""
    return torch.stack([_resize_mask(mask, size, resize) for mask in masks])


def _resize_mask(mask: Tensor, size: tuple[int, int], resize: Resize) -> Tensor:
    height, width = _inner_size(mask.shape[-2:], size, resize)
    resized = F.interpolate(mask[None, None], size=(height, width), mode="nearest")[0, 0]
    return F.pad(resized, (0, size[1] - width, 0, size[0] - height))


def resize_object(mask: Tensor, size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """The mask of a visual prompt, `[H, W]` -> uint8 `size`: nearest, but an object that falls between the samples is kept."""
    resized = resize_masks([mask.byte()], size, resize=resize)[0]
    if resized.any():
        return resized
    height, width = _inner_size(mask.shape[-2:], size, resize)
    kept = F.adaptive_max_pool2d(mask.float()[None], (height, width))[0].byte()
    return F.pad(kept, (0, size[1] - width, 0, size[0] - height))


def resize_probabilities(probabilities: Tensor, size: tuple[int, int], *, resize: Resize = "squash") -> Tensor:
    """Maps `[N, H, W]` -> `[N, *size]`, bilinear, corners not aligned: predictions at an image's own size, without padding."""
    height, width = _inner_size(size, (probabilities.shape[1], probabilities.shape[2]), resize)
    inner = probabilities[:, :height, :width]
    if inner.shape[-2:] == size:
        return inner
    return F.interpolate(inner[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
