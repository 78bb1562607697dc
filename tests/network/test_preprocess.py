"""Photos and masks brought to the model's size: squashed, squashed as Pillow does, or laid on a canvas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from operations import Operations
from PIL import Image

from clipseg.network.preprocess import (
    normalise,
    prepare_images,
    resize_images,
    resize_masks,
    resize_objects,
    resize_probabilities,
)
from clipseg.ragged import Ragged

SIZE = (32, 32)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("own", "inner"),
    [
        ((20, 40), (16, 32)),
        ((50, 30), (32, 16)),
        ((9, 9), (9, 9)),
        ((1, 500), (8, 32)),
        ((32, 17), (32, 17)),
        ((137, 136), (32, 24)),  # float32 and integers would take other pixels here
    ],
)
def test_a_canvas_is_black_beside_a_photo_that_is_made_to_fit_in_eights_and_never_enlarged(own, inner):
    image, (height, width) = noise(3, *own), inner
    (laid,) = resize_images([image], SIZE, resize="canvas")
    small = F.interpolate(image[None].float(), inner, mode="bilinear", align_corners=False)[0] / 255
    torch.testing.assert_close(laid[:, :height, :width], small, rtol=0, atol=1e-6)
    assert laid.shape == (3, *SIZE)
    assert laid.count_nonzero() == laid[:, :height, :width].count_nonzero()
    mask = (image[0] > 127).byte()
    expected = np.zeros(SIZE, dtype=np.uint8)
    for y in range(height):
        for x in range(width):
            expected[y, x] = mask[int(y * (1 / (height / own[0]))), int(x * (1 / (width / own[1])))]
    assert np.array_equal(resize_masks([mask], SIZE, resize="canvas")[0], expected)


def test_antialiasing_is_pillow_s_to_the_bit():
    """Of photos that are not much higher than wide: newer versions of Pillow begin with the rows of those that are."""
    images = [
        noise(3, *own, seed=own[0]) for own in [(64, 64), (100, 75), (480, 640), (33, 500), (352, 20), (7, 3), (375, 500)]
    ]
    for image, found in zip(images, resize_images(images, (352, 352), resize="antialias"), strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((352, 352), Image.Resampling.BILINEAR)
        assert np.array_equal((255 * found).round().byte().permute(1, 2, 0), np.asarray(picture))


def test_a_batch_of_each_way_is_its_parts():
    images = [noise(3, 20, 40), noise(3, 40, 20, seed=1)]
    for resize in ("squash", "antialias", "canvas"):
        together = prepare_images(images, SIZE, resize=resize)
        assert torch.equal(together, torch.cat([prepare_images([image], SIZE, resize=resize) for image in images]))


def test_a_canvas_is_stretched_over_a_square_of_the_longer_side():
    maps = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))
    own = resize_probabilities(maps, (20, 40), resize="canvas")
    assert torch.equal(own, F.interpolate(maps[:, None], (40, 40), mode="bilinear", align_corners=True)[:, 0, :20])
    squashed = F.interpolate(maps[:, None], (20, 40), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(resize_probabilities(maps, (20, 40)), squashed)


def test_a_small_object_is_kept_where_it_is():
    mask = torch.zeros(101, 203, dtype=torch.uint8)
    mask[100, 202] = 1
    assert resize_objects([mask], SIZE)[0].nonzero().tolist() == [[31, 31]]
    assert resize_objects([mask], SIZE, resize="canvas")[0].nonzero().tolist() == [[7, 31]]


def ragged_sizes(count: int, most: int) -> list[tuple[int, int]]:
    drawn = torch.randint(1, most, (count, 2), generator=torch.Generator().manual_seed(1)).tolist()
    return [(height, width) for height, width in drawn]


SIZES = [(1, 1), (1, 70), (64, 64), (32, 32), (33, 31), (500, 375), *ragged_sizes(20, 200)]


def test_photos_of_many_sizes_are_resized_as_torch_resizes_each():
    images = [noise(3, *own, seed=seed) for seed, own in enumerate(SIZES)]
    for size in ((32, 32), (48, 16), (1, 8)):
        alone = [
            F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=True)[0] / 255 for image in images
        ]
        torch.testing.assert_close(resize_images(images, size), torch.stack(alone), rtol=0, atol=1e-6)


def test_masks_of_many_sizes_are_resized_as_torch_resizes_each():
    masks = [(noise(*own, seed=seed) > 127).byte() for seed, own in enumerate(SIZES)]
    for size in ((32, 32), (48, 16), (352, 352), (1, 8)):
        alone = [F.interpolate(mask[None, None], size=size, mode="nearest")[0, 0] for mask in masks]
        assert torch.equal(resize_masks(masks, size), torch.stack(alone))


def test_objects_are_nearest_or_the_largest_of_what_would_be_missed():
    masks = []
    for seed, (height, width) in enumerate(SIZES):
        mask = torch.zeros(height, width, dtype=torch.uint8)
        y, x = torch.randint(0, 10**6, (2,), generator=torch.Generator().manual_seed(seed)).tolist()
        mask[y % height : y % height + 2, x % width] = 1
        masks.append(mask)
    missed = 0
    for mask, found in zip(masks, resize_objects(masks, SIZE), strict=True):
        expected = F.interpolate(mask[None, None], size=SIZE, mode="nearest")[0, 0]
        if not expected.any():
            expected, missed = F.adaptive_max_pool2d(mask[None].float(), SIZE)[0].byte(), missed + 1
        assert torch.equal(found, expected)
    assert missed > 3


def test_preparing_asks_as_many_operations_for_any_batch_and_reads_no_value():
    counts = []
    for number in (1, 64):
        images = Ragged.of([noise(3, *own, seed=seed) for seed, own in enumerate(ragged_sizes(number, 60))])
        masks = Ragged.of([(image[0] > 250).byte() for image in images])
        normalise(torch.zeros(3, 1, 1))  # brings its constants to the device once
        with Operations() as counted:
            prepare_images(images, SIZE)
            resize_masks(masks, SIZE)
            resize_images(images, SIZE)
            resize_objects(masks, SIZE)
        assert counted.reads == 0
        counts.append(counted.total)
    assert counts[0] == counts[1] <= 60
