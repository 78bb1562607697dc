"""The frozen part in bfloat16: faster, of the same weights, nearly the same; and said where a device does not have it."""

import pytest
import torch
from made_models import images, narrow_clip
from torch import nn

import clipseg
from clipseg.errors import ClipSegError
from clipseg.network import cpu_kernels
from clipseg.network.attention_mask import encode_masked_image
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.config import ModelConfig
from clipseg.network.model import CLIPSeg

with_bf16 = pytest.mark.skipif(not cpu_kernels.cpu_has_bf16(), reason="needs a processor with AVX512_BF16 or AMX")


@pytest.fixture(scope="module")
def model() -> CLIPSeg:
    config = ModelConfig(extract_layers=(1, 3, 5), image_size=64, reduce_dim=16)
    return CLIPSeg(
        CLIPBackbone(narrow_clip(), lambda texts: torch.ones(len(texts), 8, dtype=torch.int64), name="narrow"), config
    ).eval()


@with_bf16
@torch.no_grad()
def test_everything_the_frozen_part_gives_is_nearly_the_same_and_float32(model):
    half, photos = model.at_precision("bf16"), images()
    masks = torch.ones(2, 64, 64)
    for ask in (
        lambda model: model.encode_text(["a", "b"]),
        lambda model: model.encode_image(photos),
        lambda model: encode_masked_image(model.backbone, photos, masks),
        lambda model: model.activations(photos)[2],
        lambda model: model(photos, ["a", "b"]),
    ):
        plain, found = ask(model), ask(half)
        assert found.dtype == torch.float32
        difference = (found - plain).abs().max() / plain.std()
        assert 0 < difference < 0.1


@with_bf16
def test_weights_are_shared_and_the_model_itself_stays_as_it_was(model):
    half = model.at_precision("bf16")
    assert [id(weight) for weight in half.parameters()] == [id(weight) for weight in model.parameters()]
    assert (half.backbone.precision, model.backbone.precision) == (torch.bfloat16, torch.float32)
    assert half.at_precision("float32").backbone.precision == torch.float32
    assert clipseg.load("mini", precision="bf16").backbone.precision == torch.bfloat16
    assert clipseg.Segmenter(model, precision="bf16").model.backbone.precision == torch.bfloat16
    assert clipseg.Segmenter(half).model.backbone.precision == torch.bfloat16


@with_bf16
@torch.no_grad()
def test_the_residual_stream_and_the_decoder_stay_in_float32(model):
    half, seen = model.at_precision("bf16"), []
    norms = [module for module in half.modules() if isinstance(module, nn.LayerNorm)]
    hooks = [
        norm.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
        for norm in norms
    ]
    half(images(), ["a", "b"])
    for hook in hooks:
        hook.remove()
    assert set(seen) == {(torch.float32, torch.float32)}


@torch.no_grad()
def test_a_processor_without_it_says_so_and_computes_in_float32(model, monkeypatch):
    monkeypatch.setattr(cpu_kernels, "cpu_has_bf16", lambda: False)
    with pytest.warns(UserWarning, match=r"bf16: this processor has neither AVX512_BF16 nor AMX; float32 is taken") as caught:
        same = model.at_precision("bf16")
    assert len(caught) == 1
    assert torch.equal(same.activations(images())[2], model.activations(images())[2])


def test_other_precisions_are_one_line(model):
    with pytest.raises(ClipSegError, match="precision='fp16' is unknown; expected one of float32, bf16"):
        model.at_precision("fp16")
    with pytest.raises(ClipSegError, match="precision='int8' is unknown"):
        clipseg.load("mini", precision="int8")
