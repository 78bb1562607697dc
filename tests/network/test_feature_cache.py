"""Texts, and views that come again, are computed once, and what is kept is what the network gives."""

import json
from pathlib import Path

import pytest
import torch
from composed import train_settings

import train
from clipseg.data.sample import collate
from clipseg.errors import ClipSegError
from clipseg.network import feature_cache as module
from clipseg.network.feature_cache import FeatureCache, TextCache, feature_cache
from clipseg.network.model import create_model
from clipseg.run.conditioning import Conditioner
from clipseg.run.training import forward
from clipseg.run.training_data import training_data


@pytest.fixture
def cache(tmp_path, tiny_model):
    return FeatureCache(tmp_path / "features", tiny_model)


def sums(images, masks):
    return (torch.stack([image.float().sum() + mask.float().sum() for image, mask in zip(images, masks, strict=True)]),)


def views(count):
    generator = torch.Generator().manual_seed(0)
    return tuple([torch.randint(256, (3, 4, 4), generator=generator).byte() for _ in range(count)] for _ in range(2))


def refuse(*_):
    raise AssertionError("computed again")


def test_a_view_is_computed_once(cache):
    images, masks = views(3)
    (found,) = cache.look_up("sums", sums, images, masks)
    assert torch.equal(found, sums(images, masks)[0])
    (again,) = cache.look_up("sums", refuse, images[::-1], masks[::-1])
    assert torch.equal(again, found.flip(0))
    assert cache.computed == 3


@pytest.mark.parametrize("other", ["kind", "image", "mask", "shape"])
def test_what_differs_is_another_view(cache, other):
    images, masks = views(1)
    cache.look_up("sums", sums, images, masks)
    kind = "others" if other == "kind" else "sums"
    if other == "image":
        images[0][0, 0, 0] ^= 1
    if other == "mask":
        masks[0][0, 0, 0] ^= 1
    if other == "shape":
        images[0] = images[0].reshape(3, 2, 8)
    cache.look_up(kind, sums, images, masks)
    assert cache.computed == 2


def test_a_damaged_file_is_computed_anew(cache):
    images, masks = views(1)
    cache.look_up("sums", sums, images, masks)
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-2])
    (found,) = cache.look_up("sums", sums, images, masks)
    assert torch.equal(found, sums(images, masks)[0])
    cache.look_up("sums", refuse, images, masks)


def test_other_weights_have_a_folder_of_their_own(tmp_path, tiny_model):
    other = create_model("mini", None, extract_layers=(1, 2), reduce_dim=16, image_size=64, seed=1)
    assert FeatureCache(tmp_path, tiny_model).folder != FeatureCache(tmp_path, other).folder


def test_a_batch_passes_the_network_once(cache, tiny_model, phrasecut_root):
    settings = train_settings(
        "experiment=phrasecut_pc_plus", f"data.root={phrasecut_root(4)}", "data.crop=false", "training.phrases_per_image=2"
    )
    data = training_data(settings, Path(settings.data.root))
    batch = collate([data[0, item] for item in range(len(data))])
    assert len(batch.support_index)
    plain, masks = forward(tiny_model.eval(), batch, Conditioner(settings.prompt))
    condition = Conditioner(settings.prompt, cache=cache)
    cached, cached_masks = forward(tiny_model, batch, condition)
    assert torch.allclose(cached, plain, atol=1e-5)
    assert torch.equal(cached_masks, masks)
    computed = cache.computed
    assert torch.equal(forward(tiny_model, batch, condition)[0], cached), "what is found has the bits of what was computed"
    assert cache.computed == computed


def test_views_that_never_come_again():
    asked = "training.feature_cache=auto"
    assert train_settings("experiment=mini", asked).training.feature_cache == "auto"
    assert train_settings("experiment=phrasecut_pc", "data.root=x", asked).training.feature_cache is None
    assert train_settings("experiment=phrasecut_pc", "data.root=x", "data.crop=false", asked).training.feature_cache == "auto"
    for change in ("data.flip=0.5", "data.colour=0.1", "data.scale=0.5"):
        assert train_settings("experiment=mini", change, asked).training.feature_cache is None
        with pytest.raises(ClipSegError, match=r"training\.feature_cache=here .* none comes again"):
            train_settings("experiment=mini", change, "training.feature_cache=here")


def test_a_gpu_needs_none():
    model = torch.nn.Module()
    model.decoder = torch.nn.Linear(1, 1, device="meta")
    assert feature_cache("auto", model) is None
    with pytest.raises(ClipSegError, match="for a CPU, and this is meta; leave it out"):
        feature_cache("here", model)


@pytest.mark.slow
def test_a_run_says_where_its_features_come_from_and_finds_them_again(call, phrasecut_root):
    asked = ["experiment=phrasecut_pc_plus", "scale=mini", f"data.root={phrasecut_root(4)}", "data.crop=false"]
    asked += ["training.feature_cache=features", "data.workers=0", "training.steps=2", "deterministic=true"]
    weights = []
    for out in ("one", "two"):
        assert call(train, *asked, f"out={out}")[0] == 0
        weights.append(torch.load(f"{out}/checkpoints/last.pt", weights_only=True)["model"])
        (folder,) = Path("features").iterdir()
        assert json.loads(Path(out, "provenance.json").read_text())["feature_cache"] == folder.name
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_kept_texts_are_those_computed_and_the_oldest_goes(tiny_model, monkeypatch):
    asked = []
    encode_text = tiny_model.encode_text
    monkeypatch.setattr(tiny_model, "encode_text", lambda texts: asked.append(list(texts)) or encode_text(texts))
    monkeypatch.setattr(module, "TEXTS_KEPT", 2)
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", 2)
    cache = TextCache()
    first = cache.encode(tiny_model, ["a dog", "sky", "a dog"])
    assert torch.equal(first[0], first[2])
    torch.testing.assert_close(first[:2], encode_text(["a dog", "sky"]))
    assert torch.equal(cache.encode(tiny_model, ["a dog"])[0], first[0])
    cache.encode(tiny_model, ["grass"])
    assert torch.equal(cache.encode(tiny_model, ["a dog"])[0], first[0])
    cache.encode(tiny_model, ["sky"])
    assert asked == [["a dog", "sky"], ["grass"], ["sky"]]
    torch.testing.assert_close(cache.encode(tiny_model, list("abcde")), encode_text(list("abcde")))  # more than are kept
    assert asked[3:] == [["a", "b"], ["c", "d"], ["e"]]


def test_what_is_written_through_data_is_forgotten(tiny_model):
    """torch does not count it; the weights of either tower tell by a row and a column."""
    cache, known = TextCache(), tiny_model.encode_text(["a dog"])
    assert torch.equal(cache.encode(tiny_model, ["a dog"]), known)
    weight = tiny_model.backbone.clip.transformer.resblocks[0].mlp.c_fc.weight
    before = weight.detach().clone()
    try:
        weight.data.mul_(1.5)
        found = cache.encode(tiny_model, ["a dog"])
        assert torch.equal(found, tiny_model.encode_text(["a dog"]))
        assert not torch.allclose(found, known, atol=1e-3)
    finally:
        weight.data.copy_(before)
