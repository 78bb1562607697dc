"""The golden data: inputs and outputs of what was really run. `CLIPSEG_GOLDEN=FOLDER` names another set in the same layout."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(os.environ.get("CLIPSEG_GOLDEN") or Path(__file__).parent / "golden")


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def values(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def unpack(packed: np.ndarray, side: int = 352) -> np.ndarray:
    """Packed masks uint8 `[N, bytes]` -> `[N, side, side]` of 0 and 1."""
    return np.unpackbits(packed, axis=1)[:, : side * side].reshape(-1, side, side)


def look_error(images: np.ndarray, expected: dict[str, np.ndarray], name: str) -> float:
    """How far float images `[N, 3, S, S]` are from a look at those expected, at most."""
    side = images.shape[-1]
    place = arrays("00_positions")[f"at_{side}"]
    pixels = images[:, :, place[:, 0], place[:, 1]]
    block = side // 11
    blocks = images[:, :, : 11 * block, : 11 * block].reshape(*images.shape[:2], 11, block, 11, block).mean(axis=(3, 5))
    flat = images.reshape(*images.shape[:2], -1).astype(np.float64)
    stats = np.stack([flat.mean(-1), flat.std(-1), flat.min(-1), flat.max(-1)], axis=-1)
    found = {"pixels": pixels, "blocks": blocks, "stats": stats}
    return max(float(np.abs(value - expected[f"{name}_{part}"]).max()) for part, value in found.items())
