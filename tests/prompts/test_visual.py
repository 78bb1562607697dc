"""Visual prompt engineering, by invariances and against slow, obvious versions."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import gaussian_blur

from clipseg.errors import ClipSegError
from clipseg.prompts.visual import (
    DEFAULT_VARIANT,
    VARIANTS,
    Variant,
    blur_background,
    crop_to_object,
    darken_background,
    dye,
    engineer,
    outline,
)


def normalise(images):
    return (images - 0.4) / 0.25


@pytest.fixture
def batch():
    """Three images of 40 x 40 and the masks of a box, a single corner pixel and two far pixels."""
    images = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(3, 40, 40, dtype=torch.uint8)
    masks[0, 12:30, 8:15] = 1
    masks[1, 39, 0] = 1
    masks[2, 3, 5] = masks[2, 20, 36] = 1
    return images, masks


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_equals_its_images_one_by_one(name, batch):
    images, masks = batch
    together, masks_together = engineer(images, masks, VARIANTS[name], normalise=normalise)
    for index in range(len(images)):
        alone, mask_alone = engineer(images[index, None], masks[index, None], VARIANTS[name], normalise=normalise)
        torch.testing.assert_close(together[index, None], alone)
        assert torch.equal(masks_together[index, None], mask_alone)
    assert together.shape == images.shape
    assert masks_together.dtype == torch.bool
    assert masks_together.flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"dye_red", "outline_red", "highlight", "highlight_older"}))
def test_a_full_mask_changes_nothing(name, batch):
    images, _ = batch
    engineered, masks = engineer(images, torch.ones(3, 40, 40), VARIANTS[name], normalise=normalise)
    torch.testing.assert_close(engineered, normalise(images))
    assert masks.all()


@pytest.mark.parametrize("operation", [darken_background, blur_background, outline, dye, crop_to_object])
def test_other_shapes_are_errors(operation, batch):
    images, masks = batch
    with pytest.raises(ClipSegError, match="expected"):
        operation(images, torch.ones(3, 40, 39))
    with pytest.raises(ClipSegError, match="expected"):
        operation(images[0], masks)


@pytest.mark.parametrize("name", VARIANTS)
def test_inputs_are_left_alone(name, batch):
    images, masks = batch
    before = images.clone(), masks.clone()
    engineer(images, masks, VARIANTS[name], normalise=normalise)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


def test_darkening_keeps_the_object(batch):
    images, masks = batch
    dark = darken_background(images, masks, intensity=0.1)
    inside = masks.bool()[:, None].expand_as(images)
    assert torch.equal(dark[inside], images[inside])
    torch.testing.assert_close(dark[~inside], 0.1 * images[~inside])
    assert (darken_background(images, masks, intensity=0)[~inside] == 0).all()


def test_the_blur_is_behind_the_object(batch):
    images, masks = batch
    blurred = blur_background(images, masks, sigma=3, kernel=15)
    inside = masks.bool()[:, None].expand_as(images)
    assert torch.equal(blurred[inside], images[inside])
    assert torch.equal(blurred[~inside], gaussian_blur(images, 15, 3.0)[~inside])


def test_the_space_decides_what_dark_means(batch):
    images, masks = batch
    outside = ~masks.bool()[:, None].expand_as(images)
    black = partial(darken_background, intensity=0.0)
    to_mean, _ = engineer(images, masks, Variant((black,)), normalise=normalise)
    to_black, _ = engineer(images, masks, Variant(before=(black,)), normalise=normalise)
    assert (to_mean[outside] == 0).all()
    torch.testing.assert_close(to_black[outside], normalise(torch.zeros_like(images))[outside])


def slow_crop(image, mask, *, context, size):
    """One image, with loops and slices."""
    rows = [y for y in range(mask.shape[0]) if mask[y].any()]
    columns = [x for x in range(mask.shape[1]) if mask[:, x].any()]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    margin_y, margin_x = (bottom - top) * context, (right - left) * context
    top, bottom = int(max(0, top - margin_y)), int(min(mask.shape[0], bottom + margin_y))  # both ends rounded down
    left, right = int(max(0, left - margin_x)), int(min(mask.shape[1], right + margin_x))
    side = max(bottom - top, right - left)
    square = torch.zeros(4, side, side)
    y, x = (side - (bottom - top)) // 2, (side - (right - left)) // 2
    square[:3, y : y + bottom - top, x : x + right - left] = image[:, top:bottom, left:right]
    square[3, y : y + bottom - top, x : x + right - left] = mask[top:bottom, left:right]
    return F.interpolate(square[None], size=(size, size), mode="nearest")[0]


@pytest.mark.parametrize("context", [0.0, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("size", [16, 40, 64])
def test_the_crop_against_a_slow_one(batch, context, size):
    images, masks = batch
    images, masks = images[:, :, :, :38], masks[:, :, :38]
    cut, cut_masks = crop_to_object(images, masks, context=context, size=size)
    for index in range(len(images)):
        expected = slow_crop(images[index], masks[index], context=context, size=size)
        assert torch.equal(cut[index], expected[:3].float())
        assert torch.equal(cut_masks[index], expected[3].bool())


def test_the_paper_default_is_blur_then_dark_then_crop_on_normalised_pixels(batch):
    images, masks = batch
    engineered, _ = engineer(images, masks, VARIANTS[DEFAULT_VARIANT], normalise=normalise)
    by_hand = blur_background(normalise(images), masks, sigma=3.0, kernel=15)
    by_hand, _ = crop_to_object(darken_background(by_hand, masks, intensity=0.1), masks, context=0.1, size=40)
    assert torch.equal(engineered, by_hand)


def test_the_outline_is_a_disc_around_each_border_pixel():
    images, masks = torch.full((1, 3, 24, 24), 0.5), torch.zeros(1, 24, 24)
    masks[0, 8:15, 8:15] = 1
    masks[0, 11, 11] = 0  # a hole has no outline
    drawn = (outline(images, masks)[0] == torch.tensor([1.0, 0, 0])[:, None, None]).all(dim=0)
    border = [(y, x) for y in range(8, 15) for x in range(8, 15) if y in (8, 14) or x in (8, 14)]
    near = [[any((y - b) ** 2 + (x - a) ** 2 <= 9 for b, a in border) for x in range(24)] for y in range(24)]
    assert torch.equal(drawn, torch.tensor(near))
    assert torch.equal(outline(images, torch.zeros(1, 24, 24)), images)


def test_dyeing_leaves_no_other_colour(batch):
    images, masks = batch
    dyed, inside = dye(images, masks), masks.bool()
    red, green, blue = dyed.unbind(1)
    assert torch.equal(green, blue)
    assert torch.equal(red[~inside], green[~inside])
    torch.testing.assert_close(green[inside], 0.2 * red[inside])


def test_every_row_of_table_2_that_changes_pixels_is_there():
    assert len(set(VARIANTS) - {"highlight", "highlight_older"}) == 13  # 12 rows and the image as it is


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (partial(darken_background, intensity=1.5), "darken"),
        (partial(darken_background, intensity=float("nan")), "darken"),
        (partial(blur_background, sigma=0.0), "blur"),
        (partial(blur_background, kernel=4), "blur"),
        (partial(blur_background, kernel=99), "blur"),
        (partial(crop_to_object, context=-0.1), "crop"),
        (partial(crop_to_object, context=float("inf")), "crop"),
        (partial(crop_to_object, size=0), "crop"),
        (partial(outline, radius=0), "outline"),
    ],
)
def test_values_out_of_range_are_errors(step, name, batch):
    with pytest.raises(ClipSegError, match=name):
        step(*batch)
