"""Visual prompts: a picture and the mask of the object meant in it, made into one image that shows CLIP what is meant (Sec. 4).

The operations are functions of a batch, on its device: images float `[B, 3, H, W]`, masks `[B, H, W]`, bool or 0 and 1. Where a
mask is empty, all is background. The space of the pixels decides what they mean: darkening normalised pixels fades the
background to the mean colour, darkening pixels in [0, 1] to black. `engineer` composes them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from scipy.ndimage import binary_fill_holes
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from clipseg.errors import ClipSegError

RED, DYE = (1.0, 0.0, 0.0), (1.0, 0.2, 0.2)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes a photo gray


def darken_background(images: Tensor, masks: Tensor, *, intensity: float = 0.1) -> Tensor:
    """Multiply all pixels outside the mask by `intensity`, in [0, 1]; 0 removes the background."""
    if not 0 <= intensity <= 1:
        raise ClipSegError(f"darken: intensity={intensity} must be in [0, 1]")
    return torch.where(_checked(images, masks)[:, None], images, images * intensity)


def blur_background(images: Tensor, masks: Tensor, *, sigma: float = 3.0, kernel: int = 15) -> Tensor:
    """Show the object as it is on a blurred copy of the image; its colour bleeds into the blur around it, as released.

    Args:
        sigma: of the Gaussian, in pixels.
        kernel: its width in pixels, odd; at most twice the shorter side, where the border is reflected.
    """
    if not sigma > 0 or kernel < 1 or kernel % 2 == 0 or kernel // 2 >= min(images.shape[-2:]):
        raise ClipSegError(
            f"blur: sigma={sigma} and kernel={kernel}; expected sigma above 0 and an odd kernel that fits the image"
        )
    return torch.where(_checked(images, masks)[:, None], images, gaussian_blur(images, [kernel, kernel], [sigma, sigma]))


def outline(images: Tensor, masks: Tensor, *, color: Sequence[float] = RED, radius: int = 3) -> Tensor:
    """Draw the object's outer contour: all within `radius` of a border pixel, 7 pixels wide for 3. Pixels in [0, 1].

    A border pixel is one of the object that touches, by a side, the background around the objects or the frame; holes, and
    what lies in them, have no outline.
    """
    if radius < 1:
        raise ClipSegError(f"outline: radius={radius} must be at least 1 pixel")
    inside = _checked(images, masks)
    solid = torch.stack([torch.from_numpy(binary_fill_holes(mask.cpu().numpy())) for mask in inside]).to(images.device)
    cross = images.new_tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])[None, None]
    deep = F.conv2d(solid[:, None].to(images.dtype), cross, padding=1)[:, 0] > 4.5
    away = torch.arange(-radius, radius + 1, device=images.device) ** 2
    disc = (away[:, None] + away <= radius**2).to(images.dtype)[None, None]
    drawn = F.conv2d((inside & solid & ~deep)[:, None].to(images.dtype), disc, padding=radius) > 0.5
    return torch.where(drawn, images.new_tensor(color)[:, None, None], images)


def dye(images: Tensor, masks: Tensor, *, color: Sequence[float] = DYE) -> Tensor:
    """Make the image gray, and multiply the gray of the object by a color. Pixels in [0, 1]."""
    gray = (images * images.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True).expand_as(images)
    return torch.where(_checked(images, masks)[:, None], gray * images.new_tensor(color)[:, None, None], gray)


def subtract(images: Tensor, masks: Tensor, *, amount: float = 0.01) -> Tensor:
    """Lower every value, of the object too, by a constant: an accident of the highlight mask's release."""
    _checked(images, masks)
    return images - amount


def crop_to_object(images: Tensor, masks: Tensor, *, context: float = 0.1, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Cut out the mask's box with some context, centred in a square.

    Args:
        context: what is added on each side, as a part of the box's height or width; never beyond the image.
        size: side of the result in pixels, by default the images' height.

    Returns:
        images `[B, 3, size, size]`, zero where the square is larger than the cut, and masks bool `[B, size, size]`; nearest.
    """
    if not 0 <= context < float("inf") or (size is not None and size < 1):
        raise ClipSegError(f"crop: context={context} and size={size}; expected 0 or more, and a size of at least 1 pixel")
    inside = _checked(images, masks)
    size = size or images.shape[2]
    rows, in_rows = _cut(inside.any(dim=2), inside.any(dim=1), context, size)
    columns, in_columns = _cut(inside.any(dim=1), inside.any(dim=2), context, size)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    shown = in_rows[:, :, None] & in_columns[:, None, :]
    # An index between two others puts the channels last.
    cut = images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return torch.where(shown[:, None], cut, torch.zeros_like(cut)), inside[batch, rows[:, :, None], columns[:, None, :]] & shown


def _cut(along: Tensor, across: Tensor, context: float, size: int) -> tuple[Tensor, Tensor]:
    """Which row (or column) each of `size` places shows, and whether that is in the cut; `along`: the rows with the object."""
    start, stop = _extent(along, context)
    other_start, other_stop = _extent(across, context)
    side = torch.maximum(stop - start, other_stop - other_start)
    first = start - (side - (stop - start)) // 2
    # Quotient and product in float32, as everywhere that was run: whole numbers give another pixel at some sizes.
    scale = side.float()[:, None] / size
    places = first[:, None] + (torch.arange(size, device=along.device) * scale).floor().long()
    in_cut = (places >= start[:, None]) & (places < stop[:, None])
    return places.clamp(0, along.shape[1] - 1), in_cut


def _extent(along: Tensor, context: float) -> tuple[Tensor, Tensor]:
    """First and one past the last True of each row of bool `[B, L]`, all of it where there is none, widened by the context.

    Both ends are kept inside and rounded down, as released.
    """
    length = along.shape[1]
    start = along.int().argmax(dim=1)
    stop = length - along.flip(1).int().argmax(dim=1)
    margin = (stop - start).double() * context
    return (start - margin).clamp(min=0).long(), (stop + margin).clamp(max=length).long()


def _checked(images: Tensor, masks: Tensor) -> Tensor:
    """The masks as bool."""
    if images.ndim != 4 or images.shape[1] != 3 or masks.shape != (len(images), *images.shape[2:]):
        raise ClipSegError(f"images {tuple(images.shape)} and masks {tuple(masks.shape)}; expected [B, 3, H, W] and [B, H, W]")
    return masks.bool()


Step = Callable[[Tensor, Tensor], Tensor]  # images and masks -> images


@dataclass(frozen=True)
class Variant:
    """A way to show an object: steps on pixels in [0, 1], then on normalised ones, then a crop to the object.

    Attributes:
        steps: on normalised pixels.
        before: on pixels in [0, 1].
        crop: the context of the crop; None: there is none.
    """

    steps: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()
    crop: float | None = None


_BLUR, _DARK = blur_background, darken_background  # with the paper's options for their defaults

# The rows of Tab. 2 that change pixels, and the two highlight masks that were trained with or asked by (docs/paper.md, Sec. 3).
VARIANTS: Mapping[str, Variant] = {
    "original": Variant(),
    "dye_red": Variant(before=(dye,)),
    "outline_red": Variant(before=(outline,)),
    "intensity50": Variant((partial(_DARK, intensity=0.5),)),
    "intensity10": Variant((_DARK,)),
    "intensity0": Variant((partial(_DARK, intensity=0.0),)),
    "blur": Variant((_BLUR,)),
    "blur_intensity10": Variant((_BLUR, _DARK)),
    "crop_large": Variant(crop=0.5),
    "crop": Variant(crop=0.1),
    "crop_blur": Variant((_BLUR,), crop=0.5),
    "crop_intensity10": Variant((_DARK,), crop=0.1),
    "crop_blur_intensity10": Variant((_BLUR, _DARK), crop=0.1),
    "highlight": Variant((partial(_BLUR, sigma=1.0), partial(_DARK, intensity=0.5), subtract)),
    "highlight_older": Variant((_BLUR, _DARK, subtract)),
}
# The paper's choice, and what PhraseCut+ trains with.
DEFAULT_VARIANT = "crop_blur_intensity10"


def engineer(
    images: Tensor, masks: Tensor, variant: Variant, *, normalise: Callable[[Tensor], Tensor], size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Make prompt images.

    Args:
        images: float `[B, 3, H, W]` in [0, 1], not yet normalised.
        masks: `[B, H, W]`, bool or 0 and 1.
        variant: such as `VARIANTS[name]`.
        normalise: the normalisation of the network that will embed the result.
        size: side of the result in pixels, by default the images' own size. A crop is resampled to it nearest, a whole image
            bilinear, by half-pixel centres and without antialiasing.

    Returns:
        normalised images, and the masks bool (another view of the scene after a crop).

    Raises:
        ClipSegError: shapes or options that do not fit.
    """
    masks = _checked(images, masks)
    for step in (*variant.before, lambda images, _: normalise(images), *variant.steps):
        images = step(images, masks)
    if variant.crop is not None:
        return crop_to_object(images, masks, context=variant.crop, size=size)
    if size is None or images.shape[-2:] == (size, size):
        return images, masks
    resized = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return resized, F.interpolate(masks[:, None].byte(), size=(size, size), mode="nearest")[:, 0].bool()
