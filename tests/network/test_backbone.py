import dataclasses
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from made_models import VISION, images, narrow_clip
from open_clip.tokenizer import SimpleTokenizer

from clipseg.errors import ClipSegError
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.clip_weights import find_weights, load_backbone

NAME = "ViT-S-32-alt"  # the smallest plain ViT of open_clip


@pytest.fixture(scope="module")
def backbone() -> CLIPBackbone:
    return CLIPBackbone(narrow_clip(), SimpleTokenizer(), name="narrow")


def test_its_sizes(backbone: CLIPBackbone):
    assert (backbone.width, backbone.depth, backbone.patch_size, backbone.embed_dim) == (32, 6, 16, 24)


def test_image_embeddings_are_open_clips(backbone: CLIPBackbone):
    with torch.no_grad():
        expected = backbone.clip.visual(images())
    torch.testing.assert_close(backbone.encode_image(images()), expected, rtol=1e-5, atol=1e-5)


def test_text_embeddings_are_open_clips(backbone: CLIPBackbone):
    texts = ["a dog", "", "two green kites above a very long and slightly tedious wooden fence, in the evening"]
    with torch.no_grad():
        expected = backbone.clip.encode_text(SimpleTokenizer()(texts))
    torch.testing.assert_close(backbone.encode_text(texts), expected, rtol=1e-5, atol=1e-5)


def test_a_text_that_is_too_long_is_cut_with_one_warning(backbone: CLIPBackbone):
    texts = ["word " * 90, "a dog", "other " * 80]
    with pytest.warns(UserWarning, match=r"2 text\(s\) cut to CLIP's 77 tokens, such as 'word") as caught:
        found = backbone.encode_text(texts)
    assert len(caught) == 1
    with torch.no_grad():
        expected = backbone.clip.encode_text(SimpleTokenizer()(texts))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_text_that_just_fits_is_not_warned_about(backbone: CLIPBackbone):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = backbone.tokenize(["word " * 75])
    assert tokens[0, -1] == 49407


def test_stopping_early_equals_the_full_run(backbone: CLIPBackbone):
    full = backbone.activations(images(), (1, 3, 5))
    early = backbone.activations(images(), (1, 3))
    assert len(early) == 2
    assert all(torch.equal(a, b) for a, b in zip(early, full, strict=False))


def test_activations_are_what_the_blocks_put_out(backbone: CLIPBackbone):
    outputs = []
    hooks = [b.register_forward_hook(lambda *args: outputs.append(args[2])) for b in backbone.clip.visual.transformer.resblocks]
    with torch.no_grad():
        backbone.clip.visual(images())
    for hook in hooks:
        hook.remove()
    for layer, activation in zip((0, 4), backbone.activations(images(), (0, 4)), strict=True):
        torch.testing.assert_close(activation, outputs[layer], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [(1, 3), (0,), (5,)])
def test_no_block_behind_the_deepest_runs(layers: tuple[int, ...]):
    backbone = CLIPBackbone(narrow_clip(), SimpleTokenizer(), name="narrow")
    ran = []
    for block in backbone.clip.visual.transformer.resblocks:
        block.ln_1.register_forward_hook(lambda norm, *_: ran.append(norm))
    backbone.activations(images(), layers)
    assert ran == [block.ln_1 for block in backbone.clip.visual.transformer.resblocks[: layers[-1] + 1]]


def test_positions_at_the_native_size_are_the_weights_own(backbone: CLIPBackbone):
    assert backbone._positions((4, 4)) is backbone.clip.visual.positional_embedding


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (80, 48)])
def test_a_batch_equals_its_images_one_by_one(backbone: CLIPBackbone, size: tuple[int, int]):
    batch = images(size, count=3)
    together = backbone.activations(batch, (1, 5))
    assert together.grid == (size[0] // 16, size[1] // 16)
    for index in range(3):
        alone = backbone.activations(batch[index : index + 1], (1, 5))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[index : index + 1], b, rtol=1e-5, atol=1e-5)


def test_an_image_and_its_transpose_have_transposed_positions(backbone: CLIPBackbone):
    wide, tall = backbone._positions((2, 6)), backbone._positions((6, 2))
    assert wide.shape == tall.shape == (13, 32)
    assert torch.equal(wide[0], backbone.clip.visual.positional_embedding[0])
    assert not torch.equal(wide, tall)


def test_it_is_frozen(backbone: CLIPBackbone):
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    pixels = images().requires_grad_()
    assert not backbone.activations(pixels, (1,))[0].requires_grad
    assert not backbone.encode_image(pixels).requires_grad
    assert not backbone.encode_text(["a dog"]).requires_grad


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(1, 3, 60, 64), "60x64 .* patch size 16; resize to 64x64"),
        (torch.zeros(1, 3, 0, 64), "0x64"),
        (torch.zeros(3, 64, 64), r"expected float \[B, 3, H, W\]"),
        (torch.zeros(1, 1, 64, 64), r"expected float \[B, 3, H, W\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_images_it_cannot_take(backbone: CLIPBackbone, pixels: torch.Tensor, message: str):
    with pytest.raises(ClipSegError, match=message):
        backbone.activations(pixels, (1,))


def test_a_backbone_without_a_class_token_is_refused():
    clip = narrow_clip(dataclasses.replace(VISION, pool_type="avg"))
    with pytest.raises(ClipSegError, match="choose an open_clip ViT"):
        CLIPBackbone(clip, SimpleTokenizer(), name="narrow")


def test_a_random_backbone_is_its_seeds():
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first = load_backbone(NAME, None, seed=1).checksum()
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator must be left as it was"
    torch.manual_seed(4)
    assert load_backbone(NAME, None, seed=1).checksum() == first
    assert load_backbone(NAME, None, seed=2).checksum() != first


def test_the_checksum_sees_every_weight():
    clip = narrow_clip()
    before = CLIPBackbone(clip, SimpleTokenizer(), name="narrow").checksum()
    with torch.no_grad():
        clip.visual.transformer.resblocks[5].mlp.c_proj.bias[3] += 1e-3
    assert CLIPBackbone(clip, SimpleTokenizer(), name="narrow").checksum() != before


def test_an_unknown_name():
    with pytest.raises(ClipSegError, match="'ViT-B-61' is not an open_clip model"):
        load_backbone("ViT-B-61", None)


def test_a_resnet_is_refused():
    with pytest.raises(ClipSegError, match=r"RN50.*choose an open_clip ViT"):
        load_backbone("RN50", None)


def test_an_unknown_tag_lists_the_known():
    with pytest.raises(ClipSegError, match=r"pretrained='opanai' .*openai"):
        find_weights("ViT-B-16-quickgelu", "opanai")


def test_weights_of_another_activation_are_refused(tmp_path: Path):
    with pytest.raises(ClipSegError, match="computes GELU, but the weights of tag 'openai' were trained with QuickGELU"):
        find_weights("ViT-B-16", "openai")
    (tmp_path / "open_clip_model.safetensors").touch()
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": false}}')
    with pytest.raises(ClipSegError, match=r"computes QuickGELU, but .* trained with GELU; use backbone 'ViT-B-16'"):
        find_weights("ViT-B-16-quickgelu", tmp_path)


def test_offline_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(ClipSegError, match=r"cannot be downloaded: fetch open_clip_model.safetensors") as caught:
        find_weights("ViT-B-16-quickgelu", "openai")
    assert "\n" not in str(caught.value)
    assert "https://huggingface.co/timm/vit_base_patch16_clip_224.openai" in str(caught.value)


def test_a_local_file_is_loaded_strictly(tmp_path: Path):
    backbone = load_backbone(NAME, None, seed=5)
    path = tmp_path / "weights.pt"
    state = backbone.clip.state_dict()
    torch.save(state, path)
    assert load_backbone(NAME, path).checksum() == backbone.checksum()
    torch.save({key: value for key, value in state.items() if key != "visual.proj"}, path)
    with pytest.raises(ClipSegError, match="not weights of this model"):
        load_backbone(NAME, path)
    torch.save(state | {"visual.proj": torch.full_like(state["visual.proj"], float("nan"))}, path)
    with pytest.raises(ClipSegError, match=r"not finite: visual\.proj"):
        load_backbone(NAME, path)


def test_a_folder_without_weights(tmp_path: Path):
    with pytest.raises(ClipSegError, match="holds no weights file"):
        find_weights("ViT-B-16-quickgelu", tmp_path)
