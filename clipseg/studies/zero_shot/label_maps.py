"""Label maps to look at: photo, truth and prediction side by side in Pascal VOC's colours, with the names of what is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipseg.measure.figures import strip_jpeg


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """One image's picture: its key, its mIoU (fraction), the JPEG strip of `label_strip`, and the labels that occur in it."""

    key: str
    miou: float
    jpeg: bytes
    labels: tuple[int, ...]


def voc_palette() -> NDArray[np.uint8]:
    """The colours of Pascal VOC's label maps, RGB `[256, 3]`: black background, each label's three lowest bits the highest
    bits of red, green and blue, the next three the next; 255, ignored, is cream."""
    labels = np.arange(256, dtype=np.uint8)
    channels = []
    for channel in range(3):
        bits = [((labels >> (3 * place + channel)) & 1) << (7 - place) for place in range(3)]
        channels.append(bits[0] | bits[1] | bits[2])
    return np.stack(channels, axis=1).astype(np.uint8)


def label_strip(image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> bytes:
    """Photo, truth and prediction as one JPEG strip.

    Args:
        image: RGB `[H, W, 3]`.
        truth: `[H, W]`, 255 where a pixel is not counted.
        predicted: `[H, W]`.
    """
    assert image.shape == (*truth.shape, 3), (image.shape, truth.shape)
    assert predicted.shape == truth.shape, (predicted.shape, truth.shape)
    palette = voc_palette()
    return strip_jpeg([image, palette[truth], palette[predicted]])


def pick_images(miou: Mapping[str, float], n: int, seed: int) -> dict[str, list[str]]:
    """Which images to show: `best`, `worst` (the extreme first, ties in the order of keys) and `random`, as lists of keys.

    Args:
        miou: of each image, by its key.
        n: images of each kind, fewer where there are not as many.
        seed: of the random ones.
    """
    keys = sorted(miou)
    drawn = np.random.default_rng(seed).permutation(len(keys))[:n]
    return {
        "best": sorted(keys, key=lambda key: -miou[key])[:n],
        "worst": sorted(keys, key=lambda key: miou[key])[:n],
        "random": [keys[place] for place in drawn.tolist()],
    }


def legend(maps: LabelMaps, names: Sequence[str]) -> list[tuple[str, str]]:
    """Name and colour, as "#rrggbb", of what occurs in a picture; what is not counted comes last."""
    palette = voc_palette()
    known = [*names, *["not counted"] * (len(palette) - len(names))]
    return [(known[label], "#{:02x}{:02x}{:02x}".format(*palette[label].tolist())) for label in sorted(maps.labels)]
