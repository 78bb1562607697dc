"""The random crop against the facts: square of the short side, 50 draws, over 5% or the most."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipseg.data.sampling import DRAWS, random_square_crop


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 1000), fill=st.sampled_from([0.0, 0.01, 0.06, 0.5])
)
def test_it_is_the_first_draw_over_five_percent_or_the_one_with_most(height: int, width: int, seed: int, fill: float) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < fill).astype(np.uint8)
    top, left, side = random_square_crop(mask, np.random.default_rng(seed + 1))
    assert side == min(height, width)
    assert 0 <= top <= height - side
    assert 0 <= left <= width - side

    draws = np.random.default_rng(seed + 1).integers(0, max(height, width) - side + 1, size=DRAWS)
    places = [(int(d), 0) if height > width else (0, int(d)) for d in draws]
    cover = [mask[y : y + side, x : x + side].sum() / mask.size for y, x in places]  # of the photo, not of the crop
    over = [i for i, share in enumerate(cover) if share > 0.05]
    assert (top, left) == places[over[0] if over else int(np.argmax(cover))]


@pytest.mark.parametrize("shape", [(20, 200), (200, 20)])
def test_a_target_at_one_end_is_in_nearly_every_crop(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[:8, :8] = 1  # 64 of 400 pixels: 16% of a crop that holds it, which one draw in twelve does
    seen = 0
    for seed in range(200):
        top, left, side = random_square_crop(mask, np.random.default_rng(seed))
        seen += int(mask[top : top + side, left : left + side].sum()) > 0.05 * side * side
    assert seen > 150


def test_places_are_spread_over_the_image() -> None:
    mask = np.ones((10, 30), dtype=np.uint8)
    lefts = [random_square_crop(mask, np.random.default_rng(seed))[1] for seed in range(400)]
    assert set(lefts) == set(range(21))


def test_the_generator_advances_alike_whatever_the_mask() -> None:
    after = []
    for mask in (np.zeros((10, 30), np.uint8), np.ones((10, 30), np.uint8)):
        rng = np.random.default_rng(0)
        random_square_crop(mask, rng)
        after.append(rng.integers(2**63))
    assert after[0] == after[1]
