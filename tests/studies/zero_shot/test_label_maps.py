"""Label maps as pictures: VOC's colours, a strip of three, which images are shown, and what their legend says."""

import io

import numpy as np
from PIL import Image

from clipseg.studies.zero_shot.label_maps import LabelMaps, label_strip, legend, pick_images, voc_palette


def test_the_colours_are_vocs():
    palette = voc_palette()
    assert palette.shape == (256, 3)
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
    }
    assert {label: tuple(palette[label].tolist()) for label in known} == known
    assert tuple(palette[255].tolist()) == (224, 224, 192)
    assert len({tuple(colour) for colour in palette.tolist()}) == 256


def test_a_strip_is_photo_truth_and_prediction():
    truth = np.full((40, 60), 15, dtype=np.uint8)
    predicted = np.zeros((40, 60), dtype=np.uint8)
    strip = Image.open(io.BytesIO(label_strip(np.full((40, 60, 3), 200, dtype=np.uint8), truth, predicted)))
    assert strip.height == 40
    assert strip.width == 3 * 60 + 2 * 4
    for x, colour in ((30, (200, 200, 200)), (94, (192, 128, 128)), (158, (0, 0, 0))):
        assert np.abs(np.subtract(strip.getpixel((x, 20)), colour)).max() <= 6


def test_extremes_and_some_at_random():
    miou = {f"{n:02d}": n / 20 for n in reversed(range(20))}
    picked = pick_images(miou, 3, seed=1)
    assert picked["best"] == ["19", "18", "17"]
    assert picked["worst"] == ["00", "01", "02"]
    assert len(set(picked["random"])) == 3
    assert pick_images(dict(sorted(miou.items())), 3, seed=1) == picked
    assert pick_images(miou, 3, seed=2)["random"] != picked["random"]
    assert all(len(keys) == 20 for keys in pick_images(miou, 50, seed=1).values())


def test_the_legend_names_what_occurs():
    maps = LabelMaps(key="x", miou=0.5, jpeg=b"", labels=(0, 2, 255))
    assert legend(maps, ("background", "aeroplane", "bicycle")) == [
        ("background", "#000000"),
        ("bicycle", "#008000"),
        ("not counted", "#e0e0c0"),
    ]
