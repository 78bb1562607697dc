"""Texts are embedded once, as long as the weights stay."""

import torch

from clipseg.network import text_cache as module
from clipseg.network.text_cache import TextCache


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
