from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer

from clipseg.errors import ClipSegError
from clipseg.network import model as model_module
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.config import ModelConfig
from clipseg.network.model import CLIPSeg, create_model


def narrow_backbone(seed: int = 0) -> CLIPBackbone:
    torch.manual_seed(seed)
    vision = CLIPVisionCfg(image_size=64, patch_size=16, width=32, layers=6, head_width=8)
    clip = CLIP(24, vision, CLIPTextCfg(width=32, heads=4, layers=2), quick_gelu=True)
    return CLIPBackbone(clip, SimpleTokenizer(), name="narrow")


@pytest.fixture(scope="module")
def model() -> CLIPSeg:
    model = CLIPSeg(narrow_backbone(), ModelConfig(extract_layers=(1, 3, 4), reduce_dim=16))
    with torch.no_grad():
        model.decoder.head.weight.mul_(40)
    return model.eval()


def images(count: int = 3, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def conditions(count: int) -> torch.Tensor:
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_batch_equals_its_images_one_by_one(model: CLIPSeg):
    together = model(images(), conditions(3))
    assert together.shape == (3, 64, 96)
    alone = torch.cat([model(images()[n : n + 1], conditions(3)[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together - together.roll(1, 0)).abs().max() > 0.1


@torch.no_grad()
def test_many_prompts_an_image_equal_one_by_one(model: CLIPSeg):
    index = torch.tensor([2, 0, 0, 1, 2])
    together = model.decode(model.activations(images()), conditions(5), index)
    alone = torch.cat([model(images()[i : i + 1], conditions(5)[n : n + 1]) for n, i in enumerate(index)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_images_asked_about_may_be_a_list(model: CLIPSeg):
    acts = model.activations(images())
    expected = model.decode(acts, conditions(3), torch.tensor([2, 0, 0]))
    for index in ([2, 0, 0], (2, 0, 0), np.array([2, 0, 0]), torch.tensor([2, 0, 0], dtype=torch.int32)):
        assert torch.equal(model.decode(acts, conditions(3), index), expected)


@torch.no_grad()
def test_texts_are_conditions(model: CLIPSeg):
    texts = ["a dog", "sky", "a kite"]
    assert torch.equal(model(images(), texts), model(images(), model.encode_text(texts)))


@torch.no_grad()
def test_square_activations_need_no_grid(model: CLIPSeg):
    square = images(size=(64, 64))
    plain = tuple(torch.Tensor(tokens) for tokens in model.activations(square))
    assert torch.equal(model.decode(plain, conditions(3)), model(square, conditions(3)))
    with pytest.raises(ClipSegError, match="no square grid"):
        model.decode(tuple(model.activations(images())), conditions(3))


def test_only_the_decoder_learns():
    model = CLIPSeg(narrow_backbone(), ModelConfig(extract_layers=(1, 3, 4), reduce_dim=16)).train()
    before = model.backbone.checksum()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    decoder = [parameter.clone() for parameter in model.decoder.parameters()]
    model(images(), ["a dog"] * 3).square().mean().backward()
    optimizer.step()
    assert model.backbone.checksum() == before
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(decoder, model.decoder.parameters(), strict=True))
    assert model.decoder.training
    assert not any(module.training for module in model.backbone.modules())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(images(), conditions(2)), "2 conditions for 3 images"),
        (lambda m: m(images(), torch.zeros(3, 512)), r"\[3, 512\]; expected float \[N, 24\]"),
        (lambda m: m(images(), conditions(3).long()), "condition torch.int64"),
        (lambda m: m(images(), conditions(3).double()), "condition of torch.float64, but the model computes in torch.float32"),
        (lambda m: m(images().double(), conditions(3)), "images of torch.float64, but the model computes in torch.float32"),
        (lambda m: m(images().numpy(), conditions(3)), "images of type ndarray"),
        (lambda m: m(images()[:1], torch.tensor(0.0)), r"\[\]; expected float"),
        (lambda m: m.decode(m.activations(images())[:2], conditions(3), [0, 1, 2]), "2 activations; expected those after"),
        (lambda m: m.at_size("64"), "wrong kind"),
        (lambda m: m.decode(m.activations(images()), conditions(2), torch.tensor([0])), r"image_index \[1\] for 2 conditions"),
        (lambda m: m.decode(m.activations(images()), conditions(2), [0, 3]), "whole numbers from 0 to 2"),
        (lambda m: m.decode(m.activations(images()), conditions(2), [0, -1]), "whole numbers from 0 to 2"),
        (lambda m: m.decode(m.activations(images()), conditions(2), torch.tensor([0.0, 1.0])), "whole numbers from 0 to 2"),
        (lambda m: m.decode(m.activations(images()), conditions(2), ["0", "1"]), "expected whole numbers"),
        (lambda m: m.encode_text([]), "no texts"),
        (lambda m: m(images(size=(60, 64)), conditions(3)), "60x64 .* patch size 16"),
    ],
)
def test_calls_it_refuses(model: CLIPSeg, call, message: str):
    with pytest.raises(ClipSegError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "fine"}, "head='fine' is unknown"),
        ({"decoder": "unet"}, "decoder='unet' is unknown"),
        ({"reduce_dim": 18}, "reduce_dim=18"),
        ({"extract_layers": (7, 3)}, "ascending"),
        ({"extract_layers": ()}, "ascending"),
        ({"extract_layers": ("3", "7")}, "wrong kind"),
        ({"extract_layers": 3}, "wrong kind"),
        ({"reduce_dim": "64"}, "reduce_dim='64' is of the wrong kind; expected int"),
        ({"reduce_dim": True}, "wrong kind"),
        ({"image_size": 352.0}, "wrong kind"),
        ({"image_size": None}, "wrong kind"),
        ({"backbone": None}, "wrong kind"),
        ({"head": ["plain"]}, "wrong kind"),
        ({"seed": 2**64}, "64 bits"),
        ({"extract_layers": (-1, 3)}, "ascending"),
        ({"decoder": "deconv"}, "one read-out"),
    ],
)
def test_configs_that_do_not_exist(settings: dict[str, object], message: str):
    with pytest.raises(ClipSegError, match=message):
        ModelConfig(**settings)


def test_whole_numbers_of_numpy_and_paths_become_what_a_checkpoint_keeps():
    config = ModelConfig(image_size=np.int64(176), extract_layers=list(np.array([3, 7])), pretrained=Path("clip.pt"))
    assert config == ModelConfig(image_size=176, extract_layers=(3, 7), pretrained="clip.pt")
    assert {type(value) for value in (config.image_size, *config.extract_layers)} == {int}


def test_configs_that_do_not_fit_the_backbone():
    with pytest.raises(ClipSegError, match=r"extract_layers=\(3, 7, 9\): narrow has .*5"):
        CLIPSeg(narrow_backbone(), ModelConfig())
    with pytest.raises(ClipSegError, match="image_size=350"):
        CLIPSeg(narrow_backbone(), ModelConfig(extract_layers=(1,), image_size=350))


def test_create_model_says_what_it_is_built_from(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_backbone(name: str, pretrained: str | None, *, seed: int) -> CLIPBackbone:
        asked.append((name, pretrained, seed))
        return narrow_backbone()

    monkeypatch.setattr(model_module, "load_backbone", load_backbone)
    model = create_model(pretrained=None, extract_layers=[1, 2], reduce_dim=8, head="refined", image_size=64, seed=7)
    assert asked == [("ViT-B-16-quickgelu", None, 7)]
    expected = ModelConfig(pretrained=None, extract_layers=(1, 2), reduce_dim=8, head="refined", image_size=64, seed=7)
    assert model.config == expected
    deconv = create_model(extract_layers=(3,), decoder="deconv")
    assert deconv(images(1), conditions(1)).shape == (1, 64, 96)


def test_at_another_size_it_is_the_same_model():
    model = CLIPSeg(narrow_backbone(), ModelConfig(extract_layers=(1, 3, 4), reduce_dim=16, image_size=64))
    resized = model.at_size(96)
    assert (model.config.image_size, resized.config) == (64, replace(model.config, image_size=96))
    with torch.no_grad():
        model.decoder.head.weight.add_(1)
    shared = zip(model.parameters(), resized.parameters(), strict=True)
    assert all(one is other for one, other in shared)
    with pytest.raises(ClipSegError, match="image_size=90 is not a multiple"):
        model.at_size(90)


@torch.no_grad()
def test_many_prompts_are_decoded_in_parts(model, monkeypatch):
    acts = model.activations(torch.randn(2, 3, 64, 64))
    condition, index = torch.randn(7, model.backbone.embed_dim), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    whole = model.decode(acts, condition, index)
    monkeypatch.setattr(model_module, "PROMPTS_AT_ONCE", 3)
    torch.testing.assert_close(model.decode(acts, condition, index), whole)


def test_a_bare_string_is_one_text(tiny_model):
    assert torch.equal(tiny_model.encode_text("dog"), tiny_model.encode_text(["dog"]))
    for wrong in (None, 3, [1, 2], {"dog": 1}):
        with pytest.raises(ClipSegError, match="expected a list of strings"):
            tiny_model.encode_text(wrong)
