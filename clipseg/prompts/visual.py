"""Visual prompts: a picture and the mask of the object meant in it, made into one image that shows CLIP what is meant (Sec. 4).

The operations are functions of a batch, on its device: images float `[B, 3, H, W]`, masks `[B, H, W]`, bool or 0 and 1, none of
them empty. The space of the pixels decides what they mean: darkening normalised pixels fades the background to the mean colour,
darkening pixels in [0, 1] to black. `engineer` composes them in the order given, normalisation being one of the steps.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from clipseg.errors import ClipSegError

RED = (1.0, 0.0, 0.0)
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


def outline(images: Tensor, masks: Tensor, *, color: Sequence[float] = RED, width: int = 4) -> Tensor:
    """Draw a line of `width` pixels just outside the object; its color is in the images' space: red for pixels in [0, 1]."""
    if width < 1:
        raise ClipSegError(f"outline: width={width} must be at least 1 pixel")
    inside = _checked(images, masks)[:, None]
    grown = F.max_pool2d(inside.float(), 2 * width + 1, stride=1, padding=width) > 0
    return torch.where(grown & ~inside, images.new_tensor(color)[:, None, None], images)


def dye(images: Tensor, masks: Tensor, *, color: Sequence[float] = RED) -> Tensor:
    """Make the image gray and dye the object: half its gray, half the color. Pixels in [0, 1]."""
    gray = (images * images.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True).expand_as(images)
    return torch.where(_checked(images, masks)[:, None], (gray + images.new_tensor(color)[:, None, None]) / 2, gray)


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
    places = first[:, None] + torch.arange(size, device=along.device) * side[:, None] // size
    in_cut = (places >= start[:, None]) & (places < stop[:, None])
    return places.clamp(0, along.shape[1] - 1), in_cut


def _extent(along: Tensor, context: float) -> tuple[Tensor, Tensor]:
    """First and one past the last True of each row of bool `[B, L]`, widened by the context and kept inside."""
    length = along.shape[1]
    start = along.int().argmax(dim=1)
    stop = length - along.flip(1).int().argmax(dim=1)
    margin = ((stop - start) * context).round().long()
    return (start - margin).clamp(min=0), (stop + margin).clamp(max=length)


def _checked(images: Tensor, masks: Tensor) -> Tensor:
    """The masks as bool."""
    if images.ndim != 4 or images.shape[1] != 3 or masks.shape != (len(images), *images.shape[2:]):
        raise ClipSegError(f"images {tuple(images.shape)} and masks {tuple(masks.shape)}; expected [B, 3, H, W] and [B, H, W]")
    inside = masks.bool()
    empty = (~inside.flatten(1).any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ClipSegError(f"mask {empty[0]} of {len(masks)} is empty; a visual prompt needs at least one pixel of its object")
    return inside


OPERATIONS: Mapping[str, Callable[..., Tensor | tuple[Tensor, Tensor]]] = {
    "darken": darken_background,
    "blur": blur_background,
    "outline": outline,
    "dye": dye,
    "crop": crop_to_object,
}
NORMALISE = "normalise"


@dataclass(frozen=True)
class Step:
    """One step of `engineer`: "darken", "blur", "outline", "dye" or "crop" with options of its function, or "normalise"."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name != NORMALISE and self.name not in OPERATIONS:
            raise ClipSegError(f"step {self.name!r} unknown; expected one of {NORMALISE}, {', '.join(OPERATIONS)}")
        known = list(inspect.signature(OPERATIONS[self.name]).parameters)[2:] if self.name in OPERATIONS else []
        wrong = [option for option in self.options if option not in known]
        if wrong:
            raise ClipSegError(f"step {self.name!r} has no option {wrong[0]!r}; it takes {', '.join(known) or 'none'}")


def _variant(*steps: tuple[str, dict[str, float]]) -> tuple[Step, ...]:
    """On normalised pixels, as all of the paper's that need no colour."""
    return (Step(NORMALISE), *(Step(name, options) for name, options in steps))


_DARK, _BLUR, _CROP = ("darken", {"intensity": 0.1}), ("blur", {"sigma": 3.0, "kernel": 15}), ("crop", {"context": 0.1})

# The rows of Tab. 2 that change pixels.
VARIANTS: Mapping[str, tuple[Step, ...]] = {
    "original": _variant(),
    "dye_red": (Step("dye"), Step(NORMALISE)),
    "outline_red": (Step("outline"), Step(NORMALISE)),
    "intensity50": _variant(("darken", {"intensity": 0.5})),
    "intensity10": _variant(_DARK),
    "intensity0": _variant(("darken", {"intensity": 0.0})),
    "blur": _variant(_BLUR),
    "blur_intensity10": _variant(_BLUR, _DARK),
    "crop_large": _variant(("crop", {"context": 0.5})),
    "crop": _variant(_CROP),
    "crop_blur": _variant(_BLUR, _CROP),
    "crop_intensity10": _variant(_DARK, _CROP),
    "crop_blur_intensity10": _variant(_BLUR, _DARK, _CROP),
}
# The paper's choice, and what PhraseCut+ trains with.
DEFAULT_VARIANT = "crop_blur_intensity10"


def engineer(
    images: Tensor, masks: Tensor, steps: Sequence[Step], *, normalise: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Make prompt images: the steps, one after the other.

    Args:
        images: float `[B, 3, H, W]` in [0, 1], not yet normalised.
        masks: `[B, H, W]`, bool or 0 and 1.
        steps: such as `VARIANTS[name]`; "normalise" is one of them, once: what stands before it works on pixels in [0, 1].
        normalise: the normalisation of the network that will embed the result.

    Returns:
        normalised images, and the masks bool (another view of the scene after a crop).

    Raises:
        ClipSegError: an empty mask, shapes or options that do not fit, or steps in an order that has no meaning.
    """
    names = [step.name for step in steps]
    if names.count(NORMALISE) != 1 or "dye" in names[names.index(NORMALISE) :]:
        raise ClipSegError(f"steps {', '.join(names) or 'none'}: expected {NORMALISE} once, and dye only before it")
    masks = _checked(images, masks)
    for step in steps:
        result = normalise(images) if step.name == NORMALISE else OPERATIONS[step.name](images, masks, **step.options)
        images, masks = result if isinstance(result, tuple) else (result, masks)
    return images, masks
