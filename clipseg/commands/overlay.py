"""The figure that `clipseg predict` draws: the photo, and for every prompt its heat map above its cut."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

SIDE_PX = 512  # the longer side of a tile, at most
COLUMNS = 6
TITLE_LENGTH = 40

_Pixels = NDArray[np.float32]


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
    photo = (_shrink(image.float() / 255)).clamp(0, 1).permute(1, 2, 0).numpy()
    columns = min(len(prompts) + 1, COLUMNS)
    bands = -(-len(prompts) // (columns - 1))
    aspect = min(max(photo.shape[0] / photo.shape[1], 0.2), 5.0)
    figure = Figure(figsize=(2.6 * columns, (5.2 * aspect + 0.4) * bands), dpi=100, layout="constrained")
    axes = figure.subplots(2 * bands, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(photo)
    for number, (values, cut, prompt) in enumerate(zip(maps, cuts, prompts, strict=True)):
        band, column = divmod(number, columns - 1)
        _draw(axes[2 * band, column + 1], axes[2 * band + 1, column + 1], photo, values, cut, prompt)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script that the font lacks shows as boxes
        figure.savefig(file, format="png")
    return file.getvalue()


def _shrink(maps: Tensor) -> Tensor:
    """`[C, H, W]` -> the same with sides of at most `SIDE_PX`, averaged."""
    height, width = maps.shape[1:]
    scale = min(1.0, SIDE_PX / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return torch.cat([F.interpolate(one[None, None], size=size, mode="area")[0] for one in maps])


def _draw(
    above: Axes, below: Axes, photo: NDArray[np.float32], values: NDArray[np.float32], cut: NDArray[np.bool_], prompt: str
) -> None:
    """A heat map on the gray photo, and the cut."""
    title = prompt if len(prompt) <= TITLE_LENGTH else f"{prompt[: TITLE_LENGTH - 1]}…"
    # A prompt may hold dollar signs, which are no formula.
    above.set_title(" ".join(title.split()), fontsize=9, parse_math=False)
    above.imshow(photo.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    above.imshow(values, cmap="viridis", vmin=0, vmax=1, alpha=0.7)
    below.imshow(np.where(cut[:, :, None], photo, 1.0))
