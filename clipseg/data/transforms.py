"""Where to cut a photo for training, decided on the mask alone. Resizing and colours come later, batched, on the device."""

import numpy as np
from numpy.typing import NDArray

DRAWS = 50
LEAST_COVER = 0.05


def random_square_crop(mask: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw the square of side min(H, W) that training sees: one in which the target shows.

    Up to 50 places are drawn; the first whose mask covers over 5% of the square is taken, else the one with most mask.

    Args:
        mask: uint8 `[H, W]` of 0 and 1.
        rng: source of the places; it always gives the same number of draws, whatever the mask.

    Returns:
        `(top, left, side)` in pixels.

    Source: the paper's training set-up, "Random crop"; the 5% and the 50 draws are the released settings.
    """
    height, width = mask.shape
    side = min(height, width)
    # The square fills the short side, so only its place along the long one is free: sums over lines are all it takes.
    lines = mask.sum(axis=1 if height > width else 0, dtype=np.int64)
    cumulative = np.concatenate([[0], np.cumsum(lines)])
    places = rng.integers(0, len(lines) - side + 1, size=DRAWS)
    covered = cumulative[places + side] - cumulative[places]
    enough = covered > LEAST_COVER * side * side
    place = int(places[np.argmax(enough) if enough.any() else np.argmax(covered)])
    return (place, 0, side) if height > width else (0, place, side)
