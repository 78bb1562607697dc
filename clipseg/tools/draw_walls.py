"""Draw brick walls with cracks and joints, which no model here was taught: `python -m clipseg.tools.draw_walls FOLDER`.

What fine-tuning is measured on (docs/finetune.md): 20 photos to learn from and 60 to measure, as JSON Lines with masks.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from clipseg.files import atomic_write, check_new_folder

SIZE = (180, 240)
SPLITS = {"train": 20, "test": 60}


def draw_wall(rng: np.random.Generator) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.uint8]]]:
    """Return a photo, uint8 `[H, W, 3]`, and the masks of its joints and its crack, uint8 `[H, W]` of 0 and 1, by phrase."""
    height, width = SIZE
    bricks, long, joint = int(rng.integers(26, 44)), int(rng.integers(60, 96)), int(rng.integers(2, 5))
    y, x = np.mgrid[:height, :width] + rng.integers(0, 60, (2, 1, 1))
    shifted = x + (y // bricks % 2) * (long // 2)
    joints = ((y % bricks) < joint) | ((shifted % long) < joint)
    brick = np.array([rng.integers(120, 190), rng.integers(60, 110), rng.integers(45, 85)])
    mortar = np.full(3, rng.integers(150, 200))
    tint = ndimage.gaussian_filter(rng.normal(0, 1, SIZE), 6) * 90 + rng.normal(0, 6, SIZE)
    photo = np.where(joints[..., None], mortar, brick) + tint[..., None]
    crack = _crack(rng)
    photo = np.where(crack[..., None], photo * 0.3, photo)
    return photo.clip(0, 255).astype(np.uint8), {"joint": (joints & ~crack).astype(np.uint8), "crack": crack.astype(np.uint8)}


def _crack(rng: np.random.Generator) -> NDArray[np.bool_]:
    """A line that wanders from side to side of the wall, 2 to 4 pixels wide, bool `[H, W]`."""
    height, width = SIZE
    length = int(np.hypot(height, width))
    angle = rng.uniform(0, np.pi) + np.cumsum(rng.normal(0, 0.25, length)) * 0.6
    place = np.array([rng.uniform(0.3, 0.7) * height, rng.uniform(0.3, 0.7) * width])
    path = (
        place
        + np.cumsum(np.stack([np.sin(angle), np.cos(angle)], axis=1), axis=0)
        - length / 4 * np.array([np.sin(angle[0]), np.cos(angle[0])])
    )
    rows, columns = path.round().astype(int).T
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    if inside.sum() < height / 2:  # most of it left the photo
        return _crack(rng)
    line = np.zeros(SIZE, dtype=bool)
    line[rows[inside], columns[inside]] = True
    return np.asarray(ndimage.distance_transform_edt(~line) <= rng.uniform(1, 2))


def write_walls(root: Path, *, seed: int = 0) -> None:
    """Write photos, masks and `<split>.jsonl` into a new or empty folder; the same seed gives the same bytes."""
    check_new_folder(root)
    rng, number = np.random.default_rng(seed), 0
    for split, count in SPLITS.items():
        lines = []
        for _ in range(count):
            photo, masks = draw_wall(rng)
            _write_png(root / "photos" / f"{number}.png", photo)
            for phrase, mask in masks.items():
                _write_png(root / "masks" / f"{number}_{phrase}.png", mask * 255)
                lines.append({"image": f"photos/{number}.png", "phrase": phrase, "mask": f"masks/{number}_{phrase}.png"})
            number += 1
        with atomic_write(root / f"{split}.jsonl", "w") as file:
            file.write("".join(f"{json.dumps(line)}\n" for line in lines))


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    with atomic_write(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    arguments = parser.parse_args()
    write_walls(arguments.folder, seed=arguments.seed)
