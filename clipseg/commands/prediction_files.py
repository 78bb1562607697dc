"""What `clipseg predict` leaves of a photo: probabilities, masks and a figure, as PNG files."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from clipseg.commands.file_names import slug
from clipseg.commands.overlay import overlay_figure
from clipseg.commands.questions import Question, label_map
from clipseg.files import atomic_write


def write_answer(image: Tensor, maps: Tensor, question: Question, out: Path, stem: str) -> dict[str, Any]:
    """Write the files of a photo, uint8 `[3, H, W]`, from the maps of `Question.combine`; return the rest of its line."""
    titles, masks = question.titles(), question.masks(maps)
    found = []
    for index, (title, values, mask) in enumerate(zip(titles, maps, masks, strict=True)):
        name = f"{stem}.{index}_{slug(title, 'prompt', 40)}"
        _write_png(out / f"{name}.prob.png", (values * 65535).round().numpy().astype(np.uint16))
        _write_png(out / f"{name}.mask.png", mask.astype(np.uint8) * 255)
        files = {"probabilities": f"{name}.prob.png", "mask": f"{name}.mask.png"}
        own = {"threshold": question.own[title]} if title in question.own else {}
        found.append({"prompt": title, **own, **question.numbers(values, mask), **files})
    with atomic_write(out / f"{stem}.overlay.png") as file:
        file.write(overlay_figure(image, maps, masks, titles))
    line: dict[str, Any] = {
        "height": image.shape[1],
        "width": image.shape[2],
        "threshold": question.threshold,
        "prompts": found,
    }
    if question.contrast:
        _write_png(out / f"{stem}.labels.png", label_map(masks), coloured=True)
        line |= {"background": question.rest[0], "labels": f"{stem}.labels.png"}
    return line | {"overlay": f"{stem}.overlay.png"}


def _write_png(path: Path, pixels: np.ndarray, *, coloured: bool = False) -> None:
    picture = Image.fromarray(pixels)
    if coloured:  # neighbouring labels by hues far apart
        hues = [colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.75, 0.95 if label else 0) for label in range(256)]
        picture.putpalette([round(255 * part) for hue in hues for part in hue])
    with atomic_write(path) as file:
        picture.save(file, format="PNG", compress_level=1)
