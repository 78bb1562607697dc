"""Visual prompts as people hand them in: a picture of any kind and a mask of any kind, read and checked at once."""

import numbers
import os
import warnings
from dataclasses import dataclass

from torch import Tensor

from clipseg.errors import ClipSegError
from clipseg.image_io import ImageLike, orientation, read_image, read_mask


@dataclass(frozen=True, init=False, eq=False)
class VisualPrompt:
    """An object shown instead of named: a support image and the mask of the object in it.

    Attributes:
        image: uint8 RGB `[3, H, W]`.
        mask: bool `[H, W]`, True on the object.
    """

    image: Tensor
    mask: Tensor

    def __init__(self, image: ImageLike, mask: ImageLike):
        """Read both, the image turned upright as its EXIF orientation says; the mask is to be drawn on it as it is then.

        Args:
            image: path, bytes of a file, PIL image, array or tensor.
            mask: the same kinds; bool, or 0 and 1, or 0 and 255 (`image_io.read_mask`).

        Raises:
            ClipSegError: one of them cannot be read, their sizes differ, or the mask is empty.
        """
        pixels, inside = read_image(image), read_mask(mask)
        if pixels.shape[1:] != inside.shape:
            sizes = [f"{width}x{height}" for height, width in (inside.shape, pixels.shape[1:])]
            turned = "" if orientation(image) == 1 else ", upright as its EXIF orientation says"
            raise ClipSegError(
                f"{_name(mask)}: {sizes[0]} pixels, but its image has {sizes[1]}{turned}; draw the mask at the image's size"
            )
        # Quarter turns (5 to 8) show in the sizes of all but squares.
        if orientation(mask) == 1 < orientation(image) and (orientation(image) < 5 or inside.shape[0] == inside.shape[1]):
            warnings.warn(
                f"{_name(image, 'image')}: its EXIF turns or mirrors it; {_name(mask)} is taken to be drawn on it as it is "
                "shown, not on the pixels as stored",
                stacklevel=2,
            )
        if not inside.any():
            raise ClipSegError(f"{_name(mask)}: empty; mark the object with 255 (or 1, or True)")
        object.__setattr__(self, "image", pixels)
        object.__setattr__(self, "mask", inside)


def _name(source: ImageLike, other: str = "mask") -> str:
    return str(source) if isinstance(source, (str, os.PathLike)) else other


@dataclass(frozen=True, eq=False)
class Mix:
    """A text and a visual prompt for the same thing: `weight` * text + (1 - `weight`) * visual (docs/paper.md, Sec. 2).

    Raises:
        ClipSegError: a weight outside [0, 1], or not of these kinds.
    """

    text: str
    visual: VisualPrompt
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not isinstance(self.visual, VisualPrompt):
            kinds = f"{type(self.text).__name__} and {type(self.visual).__name__}"
            raise ClipSegError(f"Mix of {kinds}; expected a text and a VisualPrompt, in this order")
        if isinstance(self.weight, bool) or not isinstance(self.weight, numbers.Real) or not 0 <= self.weight <= 1:
            raise ClipSegError(f"Mix weight {self.weight!r} must be in [0, 1]: the part of the text")
        object.__setattr__(self, "weight", float(self.weight))


Prompt = str | VisualPrompt | Mix | Tensor
