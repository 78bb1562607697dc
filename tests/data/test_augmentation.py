"""Photos change together with their masks; what is off draws nothing."""

import numpy as np
import pytest
import torch

from clipseg.data.augmentation import Augmentation
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut
from clipseg.errors import ClipSegError


def picture():
    """A photo whose red channel is its mask, so that one cannot move without the other being seen."""
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:15, 8:30] = 1
    return torch.from_numpy(np.stack([255 * mask, np.full_like(mask, 90), np.full_like(mask, 30)])), mask


def test_without_any_nothing_is_drawn():
    image, mask = picture()
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    same, (same_mask,) = Augmentation().changed(image, [mask], rng)
    assert same is image
    assert same_mask is mask
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("options", [{"flip": 0.5}, {"scale": 0.4}, {"flip": 1.0, "scale": 0.6}])
def test_photo_and_mask_stay_together(options):
    image, mask = picture()
    seen = set()
    for seed in range(20):
        changed, (own,) = Augmentation(**options).changed(image, [mask], np.random.default_rng(seed))
        assert np.array_equal(changed[0].numpy() > 0, own > 0)
        assert 2 * own.sum() >= mask.sum()
        seen.add((own.shape, own.tobytes()))
    assert len(seen) > 1 or options.get("flip") == 1.0


def test_a_closer_look_has_the_sides_asked_for():
    image, mask = picture()
    sides = [Augmentation(scale=0.5).changed(image, [mask], np.random.default_rng(seed))[1][0].shape for seed in range(50)]
    assert all(20 <= height <= 40 and 30 <= width <= 60 for height, width in sides)
    assert len(set(sides)) > 10


def test_colours_change_and_masks_do_not():
    image, mask = picture()
    changed, (own,) = Augmentation(colour=0.5).changed(image, [mask], np.random.default_rng(1))
    assert own is mask
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, image)
    gray, _ = Augmentation(colour=0.5).changed(torch.full_like(image, 100), [mask], np.random.default_rng(1))
    brightness = np.random.default_rng(1).uniform(0.5, 1.5)
    assert (gray.float() - 100 * brightness).abs().max() <= 0.5 + 1e-3  # gray has neither contrast nor saturation to change


@pytest.mark.parametrize(
    ("options", "line"), [({"flip": 2}, "data.flip=2"), ({"scale": 0}, "data.scale=0"), ({"colour": -1}, "colour")]
)
def test_values_that_cannot_be(options, line):
    with pytest.raises(ClipSegError, match=line):
        Augmentation(**options)


def test_a_fraction_of_the_images_is_part_of_a_larger_one(phrasecut_root):
    root = phrasecut_root(10, splits=("train",))

    def images(fraction, seed=0):
        return set(PhraseCut(root, ReaderOptions(training=True, fraction=fraction, seed=seed)).image_ids.tolist())

    assert images(0.2) < images(0.5) < images(1.0)
    assert [len(images(part)) for part in (0.01, 0.2, 0.5, 1.0)] == [1, 2, 5, 10]
    assert images(0.5) == images(0.5)
    assert any(images(0.5, seed) != images(0.5) for seed in range(1, 4))
