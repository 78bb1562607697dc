"""References of the benchmark besides transformers, and the data it is measured on: plain counting and reading."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipseg.data.layout import IMAGES_FILE
from clipseg.data.sampling import random_square_crop
from clipseg.files import atomic_write, write_json
from clipseg.measure.metrics import THRESHOLDS

PHRASES = ("a dog", "sky", "red car", "person on the left", "grass", "wooden table", "something to sit on", "white shirt")
PER_IMAGE = (6, 5, 6, 5, 6)  # 5.6 phrases an image, the mean of PhraseCut's test split
PHOTO = (375, 500)  # (H, W), what most photos of Visual Genome measure


def counts_by_sorting(probabilities: NDArray[np.float32], mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """True and false positives, int64 `[49, 2]`: at each threshold the pixels are sorted by which of four cases they are."""
    rows = []
    for threshold in THRESHOLDS:
        cases = np.sort(2 * mask + (probabilities > threshold), axis=None)
        _, false_positives, _, true_positives = np.diff(np.searchsorted(cases, np.arange(5)))
        rows.append((true_positives, false_positives))
    return np.array(rows, dtype=np.int64)


def polygon_mask(polygon: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The mask of one polygon of (x, y) on a photo, by scikit-image."""
    from skimage.draw import polygon2mask

    mask: NDArray[np.uint8] = polygon2mask(PHOTO, polygon[:, ::-1]).astype(np.uint8)
    return mask


def read_by_polygon2mask(
    path: Path, polygon: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Photo uint8 `[3, S, S]` and mask `[S, S]`, cropped as our reader does."""
    with Image.open(path) as photo:
        image = np.asarray(photo.convert("RGB")).transpose(2, 0, 1)
    mask = polygon_mask(polygon)
    top, left, side = random_square_crop(mask, rng)
    image = np.ascontiguousarray(image[:, top : top + side, left : left + side])
    return image, np.ascontiguousarray(mask[top : top + side, left : left + side])


def draw_data_set(root: Path) -> None:
    """Five soft random photos with 28 phrases and polygons of 24 points, as split `test`."""
    rng = np.random.default_rng(0)
    height, width = PHOTO
    images, tasks = [], []
    for number, phrases in enumerate(PER_IMAGE):
        images.append({"image_id": number, "width": width, "height": height, "url": ""})
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        with atomic_write(root / "images" / f"{number}.jpg") as file:
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, format="JPEG", quality=90)
        for task in range(phrases):
            angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            radius = rng.uniform(40, 160, size=(24, 1))
            points = rng.uniform((150, 120), (350, 250)) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            polygon = np.clip(points, 0, (width - 1, height - 1)).tolist()
            entry = {"task_id": f"{number}__{task}", "image_id": number, "phrase": PHRASES[task], "Polygons": [[polygon]]}
            tasks.append(entry)
    write_json(root / IMAGES_FILE, images)
    write_json(root / "refer_test.json", tasks)
