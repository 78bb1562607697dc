"""Which square was really cropped (golden case 2)."""

import numpy as np
from golden_data import arrays

from clipseg.data import sampling
from clipseg.data.sampling import choose_crop


def test_golden_number_of_offers(monkeypatch):
    """As many places are drawn as were, the last of which may be the one that is taken."""
    offered = []
    monkeypatch.setattr(sampling, "choose_crop", lambda mask, offers: offered.append(offers.shape) or (0, 0, 8))
    sampling.random_square_crop(np.ones((8, 20), dtype=np.uint8), np.random.default_rng(0))
    assert offered == [arrays("02_crops_inputs")["offsets"].shape[1:]]


def test_golden_crops():
    inputs, expected = arrays("02_crops_inputs"), arrays("02_crops")
    masks = np.unpackbits(inputs["masks"], axis=-1)
    for number, ((height, width), offers) in enumerate(zip(inputs["sizes"].tolist(), inputs["offsets"], strict=True)):
        found = choose_crop(masks[number, :height, :width], offers.astype(np.int64))
        assert found == tuple(int(expected[name][number]) for name in ("top", "left", "side"))
