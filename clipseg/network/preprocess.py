"""Pixels -> the network's input, and masks -> its targets: resize and normalise, on whatever device the pixels are on."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# The paper's code normalises with ImageNet's statistics, not CLIP's own, for query images and visual prompts alike.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def prepare_images(images: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Squash photos of any size to one size and normalise them (facts Sec. 2).

    Args:
        images: B tensors, uint8 RGB `[3, H_b, W_b]`.
        size: (H, W) in pixels.

    Returns:
        float32 `[B, 3, H, W]`; bilinear with corners aligned and without antialiasing, as released.
    """
    return normalise(torch.stack([resize_image(image, size) for image in images]))


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 `[3, H, W]` -> float32 in [0, 1] `[3, *size]`, bilinear, corners aligned, no antialiasing."""
    pixels = image[None].float()
    if image.shape[-2:] != size:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=True)
    return pixels[0] / 255


def normalise(images: Tensor) -> Tensor:
    """float `[..., 3, H, W]` in [0, 1] -> zero mean and unit variance a channel, by ImageNet's statistics."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def resize_masks(masks: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """N masks, uint8 `[H_n, W_n]` -> uint8 `[N, *size]`, nearest."""
    return torch.stack([F.interpolate(mask[None, None], size=size, mode="nearest")[0, 0] for mask in masks])


def resize_object(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask of a visual prompt, `[H, W]` -> uint8 `size`: nearest, but an object that falls between the samples is kept."""
    resized = resize_masks([mask.byte()], size)[0]
    return resized if resized.any() else F.adaptive_max_pool2d(mask.float()[None], size)[0].byte()


def resize_probabilities(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps `[N, H, W]` -> `[N, *size]`, bilinear, corners not aligned: predictions at an image's own size."""
    if probabilities.shape[-2:] == size:
        return probabilities
    return F.interpolate(probabilities[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
