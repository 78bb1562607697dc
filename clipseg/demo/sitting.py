"""What one visitor of the demo has asked about a photo, kept from one move of a slider to the next. Knows nothing of pages."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clipseg.commands.file_names import slug
from clipseg.errors import ClipSegError
from clipseg.image_io import read_image
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import MEAN, STD, normalise, resize_images, resize_objects
from clipseg.prompts.support import VisualPrompt
from clipseg.prompts.visual import VARIANTS, engineer
from clipseg.segmenter import Segmenter

SHOWN = 768  # pixels of the longer side of what the page shows, at most
MOST_PHRASES = 12

Pixels = NDArray[np.uint8]


class Sitting:
    """A photo, what it is asked for, and the answers.

    Args:
        model: shared with all other visitors.
    """

    def __init__(self, model: CLIPSeg) -> None:
        self._segment = Segmenter(model)
        self._photo: str | None = None
        self._seen: Pixels | None = None
        self._titles: list[str] = []
        self._prompts: list[str | Tensor] = []
        self._maps: NDArray[np.float32] | None = None

    def look(self, photo: str) -> None:
        """Pass a photo through the backbone, once for all that is asked about it.

        Args:
            photo: path of a file.

        Raises:
            ClipSegError: it cannot be read.
        """
        if photo == self._photo:
            return
        self._photo = self._seen = self._maps = None
        pixels = read_image(photo, name=Path(photo).name)
        self._segment.set_image(pixels)
        self._seen = _shrink(pixels[None].float()).round().byte()[0].permute(1, 2, 0).numpy()
        self._photo = photo

    def ask(
        self, phrases: str, example: VisualPrompt | None = None, *, variant: str, name: str = "", weight: float = 0.0
    ) -> None:
        """Ask for each phrase, and for an example where there is one.

        Args:
            phrases: one a line.
            example: the object shown instead of named.
            variant: how it is shown to CLIP, one of `VARIANTS`.
            name: what it is called; empty: nothing.
            weight: of that name in the mix with the example, 0 to 1.

        Raises:
            ClipSegError: no photo, nothing or too much to ask.
        """
        titles = list(dict.fromkeys(line.strip() for line in phrases.splitlines() if line.strip()))
        if self._photo is None:
            raise ClipSegError("no photo; choose one first")
        if len(titles) > MOST_PHRASES:
            raise ClipSegError(f"{len(titles)} phrases; ask for at most {MOST_PHRASES} at once")
        prompts: list[str | Tensor] = [*titles]
        if example is not None:
            shown = embed_example(self._segment.model.backbone, example, variant, self._segment.model.config.image_size)
            weight = weight if name.strip() else 0.0
            text = self._segment.embed(name.strip())[0] if weight else shown
            prompts.append(weight * text + (1 - weight) * shown)
            titles.append("the example" + (f", {weight:.0%} “{name.strip()}”" if weight else ""))
        if not prompts:
            raise ClipSegError("nothing to ask for; write a phrase, or mark an example")
        self._titles, self._prompts = titles, prompts
        self._maps = _shrink(self._segment.predict(prompts)[:, None])[:, 0].numpy()

    def picture(self, threshold: float) -> tuple[Pixels, list[tuple[NDArray[np.float32], str]]]:
        """Return the photo, and for each title where its probability is above the threshold, the surer the more opaque.

        Raises:
            ClipSegError: nothing was asked yet.
        """
        if self._seen is None or self._maps is None:
            raise ClipSegError("no answer yet; choose a photo and ask for something")
        cut = np.where(self._maps > threshold, 0.25 + 0.6 * self._maps, 0).astype(np.float32)
        areas = (self._maps > threshold).mean(axis=(1, 2))
        return self._seen, [(map_, f"{title} ({area:.1%})") for map_, title, area in zip(cut, self._titles, areas, strict=True)]

    def save(self, threshold: float, path: Path) -> None:
        """Write a ZIP of the masks and the 16-bit probabilities at the photo's own size, named as `clipseg predict` does.

        Raises:
            ClipSegError: nothing was asked yet.
        """
        if self._maps is None:
            raise ClipSegError("no answer yet; choose a photo and ask for something")
        with zipfile.ZipFile(path, "w") as archive:
            maps = self._segment.predict(self._prompts).numpy()
            for number, (title, values) in enumerate(zip(self._titles, maps, strict=True)):
                name = f"{number}_{slug(title, 'prompt', 40)}"
                archive.writestr(f"{name}.mask.png", _png((values > threshold).astype(np.uint8) * 255))
                archive.writestr(f"{name}.prob.png", _png((values * 65535).round().astype(np.uint16)))


def embed_example(backbone: CLIPBackbone, example: VisualPrompt, variant: str, side: int) -> Tensor:
    """Return CLIP's embedding of an example, float `[E]`."""
    with torch.no_grad():
        return backbone.encode_image(_engineered(backbone, example, [variant], side))[0]


def prompt_images(model: CLIPSeg, example: VisualPrompt, variants: Sequence[str] = tuple(VARIANTS)) -> list[tuple[Pixels, str]]:
    """Return what CLIP sees of an example by each variant, and the variant's name."""
    shown = _engineered(model.backbone, example, variants, model.config.image_size).cpu()
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    pixels = (shown * deviation + mean).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return list(zip(pixels, variants, strict=True))


def _engineered(backbone: CLIPBackbone, example: VisualPrompt, variants: Sequence[str], side: int) -> Tensor:
    device, size = next(backbone.parameters()).device, (side, side)
    image, mask = resize_images([example.image.to(device)], size), resize_objects([example.mask.to(device)], size)
    return torch.cat([engineer(image, mask, VARIANTS[variant], normalise=normalise)[0] for variant in variants])


def _shrink(images: Tensor) -> Tensor:
    """`[N, C, H, W]` -> the same with sides of at most `SHOWN`, averaged."""
    height, width = images.shape[2:]
    scale = min(1.0, SHOWN / max(height, width))
    return F.interpolate(images, size=(max(1, round(height * scale)), max(1, round(width * scale))), mode="area")


def _png(pixels: NDArray[np.integer]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
