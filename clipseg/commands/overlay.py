"""The figure that `clipseg predict` draws: the photo, and for every prompt its heat map above its cut."""

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE_PX = 512  # the longer side of a tile, at most
COLUMNS = 6
TITLE_LENGTH = 40
TITLE_PX, GAP_PX = 22, 8
# Viridis at equal steps from 0 to 1; between them straight lines.
# fmt: off
_VIRIDIS = (
    (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142),
    (31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37),
)
# fmt: on
_HEAT = np.stack(
    [np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(_VIRIDIS)), channel) for channel in zip(*_VIRIDIS, strict=True)],
    axis=1,
).astype(np.float32)


def overlay_figure(image: Tensor, probabilities: Tensor, masks: NDArray[np.bool_], prompts: Sequence[str]) -> bytes:
    """Draw what was found.

    Args:
        image: uint8 RGB `[3, H, W]`.
        probabilities: float `[N, H, W]`.
        masks: bool `[N, H, W]`; the cut shows their pixels, on white.
        prompts: N titles.

    Returns:
        A PNG file.
    """
    maps, cuts = _shrink(probabilities).numpy(), _shrink(torch.from_numpy(masks).float()).numpy() >= 0.5
    photo = _shrink(image.float()).clamp(0, 255).permute(1, 2, 0).numpy()
    height, width = photo.shape[:2]
    columns = min(len(prompts) + 1, COLUMNS)
    bands = -(-len(prompts) // (columns - 1))
    band_px = TITLE_PX + 2 * (height + GAP_PX)
    figure = Image.new("RGB", (columns * (width + GAP_PX) - GAP_PX, bands * band_px - GAP_PX), "white")
    font = ImageFont.load_default(size=14)
    figure.paste(_picture(photo), (0, TITLE_PX))
    for number, (values, cut, prompt) in enumerate(zip(maps, cuts, prompts, strict=True)):
        band, column = divmod(number, columns - 1)
        left, top = (column + 1) * (width + GAP_PX), band * band_px
        title = " ".join((prompt if len(prompt) <= TITLE_LENGTH else f"{prompt[: TITLE_LENGTH - 1]}…").split())
        strip = Image.new("RGB", (width, TITLE_PX), "white")  # as wide as the tile: a long title is cut there
        ImageDraw.Draw(strip).text((0, 2), title, fill="black", font=font)
        figure.paste(strip, (left, top))
        heat = 0.3 * photo.mean(axis=2, keepdims=True) + 0.7 * _HEAT[np.rint(255 * values.clip(0, 1)).astype(np.uint8)]
        figure.paste(_picture(heat), (left, top + TITLE_PX))
        figure.paste(_picture(np.where(cut[:, :, None], photo, 255)), (left, top + TITLE_PX + height + GAP_PX))
    file = io.BytesIO()
    figure.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _picture(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def _shrink(maps: Tensor) -> Tensor:
    """`[C, H, W]` -> the same with sides of at most `SIDE_PX`, averaged."""
    height, width = maps.shape[1:]
    scale = min(1.0, SIDE_PX / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return torch.cat([F.interpolate(one[None, None], size=size, mode="area")[0] for one in maps])
