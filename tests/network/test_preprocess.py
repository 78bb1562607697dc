"""Photos and masks brought to the model's size: squashed, or with their aspect kept and padded."""

import pytest
import torch
import torch.nn.functional as F

from clipseg.network.preprocess import prepare_images, resize_image, resize_masks, resize_object, resize_probabilities

SIZE = (32, 32)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("own", "inner"),
    [((20, 40), (16, 32)), ((50, 30), (32, 19)), ((9, 9), (32, 32)), ((1, 500), (1, 32)), ((32, 32), (32, 32))],
)
def test_the_longer_side_fills_the_size_and_the_rest_is_zero(own, inner):
    image, (height, width) = noise(3, *own), inner
    padded = prepare_images([image], SIZE, resize="pad")[0]
    assert padded.shape == (3, *SIZE)
    assert torch.equal(padded[:, :height, :width], prepare_images([image], inner)[0])
    assert padded.count_nonzero() == padded[:, :height, :width].count_nonzero()
    mask = (image[:1] > 127).byte()[0]
    small = resize_masks([mask], SIZE, resize="pad")[0]
    assert torch.equal(small[:height, :width], resize_masks([mask], inner)[0])
    assert small.sum() == small[:height, :width].sum()
    valid = resize_masks([torch.ones_like(mask)], SIZE, resize="pad")[0]
    assert valid.sum() == height * width


def test_a_batch_of_both_ways_is_its_parts():
    images = [noise(3, 20, 40), noise(3, 40, 20, seed=1)]
    for resize in ("squash", "pad"):
        together = prepare_images(images, SIZE, resize=resize)
        assert torch.equal(together, torch.cat([prepare_images([image], SIZE, resize=resize) for image in images]))
    assert torch.equal(resize_image(images[0], SIZE), resize_image(images[0], SIZE, resize="squash"))


def test_at_the_own_size_padding_is_gone():
    maps = torch.ones(2, *SIZE)
    maps[:, :16] = torch.linspace(0, 0.5, 16)[:, None]
    own = resize_probabilities(maps, (20, 40), resize="pad")
    assert own.shape == (2, 20, 40)
    assert own.max() <= 0.5
    assert torch.equal(own, F.interpolate(maps[:, None, :16], size=(20, 40), mode="bilinear")[:, 0])
    assert resize_probabilities(maps, (20, 40)).max() == 1


def test_a_small_object_is_kept_where_it_is():
    mask = torch.zeros(101, 203, dtype=torch.uint8)
    mask[100, 202] = 1
    kept = resize_object(mask, SIZE, resize="pad")
    assert kept.nonzero().tolist() == [[15, 31]]
