"""Prompt images as they were really made (golden case 4)."""

import numpy as np
import pytest
import torch
from golden_data import GOLDEN, arrays, look_error, unpack, values
from PIL import Image

from clipseg.data.rasterise import rasterise
from clipseg.network.preprocess import normalise, resize_images, resize_masks
from clipseg.prompts.visual import VARIANTS, _extent, crop_to_object, engineer, outline

SIDE = 352
PROMPTS = {
    "crop_blur_highlight352": "crop_blur_intensity10",
    "blur_highlight": "highlight",
    "blur3_highlight01": "highlight_older",
}
STUDY = {
    "bg_50": "intensity50",
    "bg_10": "intensity10",
    "bg_0": "intensity0",
    "blur": "blur",
    "blur_and_10": "blur_intensity10",
    "colorize": "dye_red",
    "outline": "outline_red",
    "crop_0.5": "crop_large",
    "crop_0.1": "crop",
    "crop_and_blur": "crop_blur",
    "crop_and_blur_and_10": "crop_blur_intensity10",
}


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Photos in [0, 1] and masks at 352; the last pair is the first photo with an empty mask."""
    images, masks = [], []
    for entry in values("04_visual_prompts"):
        with Image.open(GOLDEN / entry["photo"]) as photo:
            images.append(torch.from_numpy(np.array(photo.convert("RGB")).transpose(2, 0, 1).copy()))
        polygons = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in entry["polygons"]]
        masks.append(torch.from_numpy(rasterise(polygons, entry["height"], entry["width"])))
    images.append(images[0])
    masks.append(torch.zeros_like(masks[0]))
    return resize_images(images, (SIDE, SIDE)), resize_masks(masks, (SIDE, SIDE))


def test_golden_photos_and_masks_come_to_the_network_s_size(pairs):
    images, masks = pairs
    expected = arrays("04_inputs")
    assert look_error(normalise(images).numpy(), expected, "image") < 1e-4
    assert np.array_equal(masks.numpy(), unpack(expected["mask"]))
    assert np.array_equal(masks.sum(dim=(1, 2)).numpy(), expected["mask_pixels"])


@pytest.mark.parametrize("name", PROMPTS)
def test_golden_prompt_images(pairs, name):
    shown, _ = engineer(*pairs, VARIANTS[PROMPTS[name]], normalise=normalise)
    assert look_error(shown.numpy(), arrays("04_prompts"), name) < 1e-4


@pytest.mark.parametrize("name", STUDY)
def test_golden_rows_of_table_2(pairs, name):
    expected, variant = arrays("04_study"), VARIANTS[STUDY[name]]
    assert look_error(engineer(*pairs, variant, normalise=normalise, size=224)[0].numpy(), expected, f"{name}_at_224") < 1e-4
    if variant.crop is None:
        assert look_error(engineer(*pairs, variant, normalise=normalise)[0].numpy(), expected, f"{name}_at_352") < 1e-4


def test_golden_outline_is_the_very_pixels(pairs):
    red = torch.tensor([1.0, 0, 0])[:, None, None]
    drawn = (outline(*pairs) == red).all(dim=1) & (pairs[0] != red).any(dim=1)
    assert np.array_equal(drawn.numpy(), unpack(arrays("04_study")["outline_red_pixels"]))


@pytest.mark.parametrize("context", [0.1, 0.5])
def test_golden_boxes(context):
    boxes = arrays("04_boxes")
    for extent, expected in zip(boxes["extent"].tolist(), boxes[f"box_{context}"].tolist(), strict=True):
        masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        masks[0, extent[0] : extent[1], extent[2] : extent[3]] = True
        found = [int(end) for along in (masks.any(dim=2), masks.any(dim=1)) for end in _extent(along, context)]
        assert found == expected


@pytest.mark.parametrize("name", [name for name in arrays("04_boxes") if name.startswith("cut_")])
def test_golden_cuts_show_the_very_pixels(name):
    (height, width), side = map(int, name.split("_")[1].split("x")), int(name.split("_")[3])
    numbers = torch.zeros(1, 3, 400, 400)
    numbers[:, :, :height, :width] = 1 + torch.arange(height * width, dtype=torch.float32).view(height, width)
    cut, _ = crop_to_object(numbers, numbers[:, 0] > 0, context=0.0, size=side)
    assert np.array_equal(cut[0, 0, ::11, ::11].numpy().astype(np.int32), arrays("04_boxes")[name])
