"""CLIP's zero-shot classification against open_clip's own functions."""

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image

from clipseg import ClipSegError, classify, create_model
from clipseg.data.mini.scenes import COLOURS, Kind, draw_scene
from clipseg.data.mini.shapes import CATEGORIES
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.preprocess import MEAN, STD
from clipseg.prompts.text import TEMPLATES

PHOTO = np.random.default_rng(0).integers(0, 256, (130, 200, 3), dtype=np.uint8)
NAMES = ["a dog", "sky", "{}", ""]


@torch.no_grad()
def by_open_clip(model, names, templates, statistics):
    clip = model.backbone.clip
    image = image_transform(112, is_train=False, **statistics)(Image.fromarray(PHOTO))[None]
    of_image = clip.encode_image(image, normalize=True)[0]
    logits = []
    for name in names:
        texts = model.backbone.tokenizer([template.replace("{}", name, 1) for template in templates])
        mean = clip.encode_text(texts, normalize=True).mean(dim=0)
        logits.append(clip.logit_scale.exp() * of_image @ mean / mean.norm())
    return torch.stack(logits).softmax(dim=0)


def test_it_is_clips_softmax(tiny_model):
    found = classify(PHOTO, NAMES, model=tiny_model)
    assert list(found) == NAMES
    assert sum(found.values()) == pytest.approx(1)
    expected = by_open_clip(tiny_model, NAMES, ["a photo of a {}."], {"mean": MEAN, "std": STD})
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-5)


def test_another_clip_has_clips_own_statistics(tiny_model):
    backbone = CLIPBackbone(tiny_model.backbone.clip, tiny_model.backbone.tokenizer, name="ViT-B-16-quickgelu")
    other = create_model("mini", None, image_size=112)
    other.backbone = backbone
    found = classify(PHOTO, NAMES, model=other, templates="plain")
    np.testing.assert_allclose(list(found.values()), by_open_clip(tiny_model, NAMES, ["{}"], {}), atol=1e-5)
    with_imagenets = by_open_clip(tiny_model, NAMES, ["{}"], {"mean": MEAN, "std": STD})
    assert not np.allclose(list(found.values()), with_imagenets, atol=1e-5)


def test_a_set_of_templates_is_averaged_as_clips_authors_do(tiny_model):
    found = classify(PHOTO, NAMES, model=tiny_model, templates="extended")
    expected = by_open_clip(tiny_model, NAMES, TEMPLATES["extended"], {"mean": MEAN, "std": STD})
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-5)


def test_a_thin_strip_takes_no_more_memory_than_its_centre(tiny_model):
    strip = np.zeros((1, 60_000, 3), dtype=np.uint8)
    assert sum(classify(strip, ["dog", "cat"], model=tiny_model).values()) == pytest.approx(1)


@pytest.mark.parametrize("names", [[], "dog", ["dog", "dog"], ["dog", 3]])
def test_names_that_cannot_be(tiny_model, names):
    with pytest.raises(ClipSegError, match="names"):
        classify(PHOTO, names, model=tiny_model)


def test_an_image_that_cannot_be_read(tiny_model):
    with pytest.raises(ClipSegError, match="no such image"):
        classify("nowhere.jpg", ["dog"], model=tiny_model)


def test_the_embedded_clip_names_what_is_drawn():
    embedded = create_model("mini", image_size=112)
    right = 0
    for index, category in enumerate(CATEGORIES):
        colour = list(COLOURS)[index]
        scene = draw_scene(np.random.default_rng(index), [Kind(category, colour, "large")], side=112)
        found = classify(scene.image, list(CATEGORIES), model=embedded)
        right += max(found, key=found.__getitem__) == category
    assert right >= 5  # of 8; by chance 1
