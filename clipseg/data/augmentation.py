"""Changes of photos in training that the paper does not make: mirrored, in another light, a closer look. All off by default."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg.errors import ClipSegError, check_probability

PLACES = 10
_GRAY = torch.tensor([0.299, 0.587, 0.114])[:, None, None]  # BT.601


@dataclass(kw_only=True)
class Augmentation:
    """How photos are changed together with their masks; nothing is drawn for what is off.

    Attributes:
        flip: how often left and right change places; phrases such as "the left dog" are then wrong.
        colour: c, by which brightness, contrast and saturation change: each times U[1 - c, 1 + c].
        scale: the shown part has U[scale, 1] times the height and width.

    Raises:
        ClipSegError: a value outside [0, 1], or a scale of 0.
    """

    flip: float = 0.0
    colour: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("flip", "colour", "scale"):
            check_probability(f"data.{name}", getattr(self, name))
        if not self.scale:
            raise ClipSegError("data.scale=0 shows nothing; choose above 0, such as 0.5")

    def changed(
        self, image: torch.Tensor, masks: Sequence[NDArray[np.uint8]], rng: np.random.Generator
    ) -> tuple[torch.Tensor, Sequence[NDArray[np.uint8]]]:
        """Return an image, uint8 RGB `[3, H, W]`, and its masks `[H, W]` as one draw changes them."""
        if self.scale < 1:
            rows, columns = _closer(masks[0], rng.uniform(self.scale, 1), rng)
            image, masks = image[:, rows, columns], [mask[rows, columns] for mask in masks]
        if self.flip and rng.random() < self.flip:
            image, masks = image.flip(2), [mask[:, ::-1] for mask in masks]
        if self.colour:
            image = _recoloured(image, *rng.uniform(1 - self.colour, 1 + self.colour, size=3).tolist())
        return image, masks


def _closer(mask: NDArray[np.uint8], scale: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of the first of some places that keeps half of the target, else of the one that keeps most."""
    sides = [max(round(scale * side), 1) for side in mask.shape]
    drawn = [rng.integers(0, whole - side + 1, size=PLACES) for whole, side in zip(mask.shape, sides, strict=True)]
    places = [(slice(top, top + sides[0]), slice(left, left + sides[1])) for top, left in zip(*drawn, strict=True)]
    kept = np.array([int(mask[place].sum()) for place in places])
    enough = 2 * kept >= int(mask.sum())
    return places[int(np.argmax(enough if enough.any() else kept))]


def _recoloured(image: torch.Tensor, brightness: float, contrast: float, saturation: float) -> torch.Tensor:
    pixels = image.float() * brightness
    gray = (pixels * _GRAY).sum(0, keepdim=True)
    mean = gray.mean()
    pixels = mean + contrast * (gray + saturation * (pixels - gray) - mean)
    return pixels.round().clamp(0, 255).byte()
