"""Which square was really cropped (golden case 2)."""

import numpy as np
from golden_data import arrays

from clipseg.data.sampling import choose_crop


def test_golden_crops():
    inputs, expected = arrays("02_crops_inputs"), arrays("02_crops")
    masks = np.unpackbits(inputs["masks"], axis=-1)
    for number, ((height, width), offers) in enumerate(zip(inputs["sizes"].tolist(), inputs["offsets"], strict=True)):
        found = choose_crop(masks[number, :height, :width], offers.astype(np.int64))
        assert found == tuple(int(expected[name][number]) for name in ("top", "left", "side"))
