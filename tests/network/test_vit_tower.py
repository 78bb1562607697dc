from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from made_models import images, narrow_clip
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from clipseg.errors import ClipSegError
from clipseg.network.attention_mask import encode_masked_image
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.config import ModelConfig
from clipseg.network.formats.transformers import save_transformers
from clipseg.network.model import CLIPSeg, create_model
from clipseg.network.vit_tower import ViTBackbone, load_image_tower
from clipseg.network.weights import load, save_release
from clipseg.prompts.support import VisualPrompt
from clipseg.segmenter import Segmenter

TINY = "vit_tiny_patch16_224"
CLIP = CLIPBackbone(narrow_clip(), SimpleTokenizer(), name="narrow")


def narrow_tower(**changes: Any) -> VisionTransformer:
    torch.manual_seed(1)
    sizes = {"img_size": 48, "patch_size": 8, "embed_dim": 40, "depth": 5, "num_heads": 4, "num_classes": 0}
    tower = VisionTransformer(**sizes | changes)
    for parameter in tower.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    return tower


def narrow_backbone(**changes: Any) -> ViTBackbone:
    return ViTBackbone(CLIP, narrow_tower(**changes), name="narrow_vit")


@pytest.fixture(scope="module")
def backbone() -> ViTBackbone:
    return narrow_backbone()


def test_its_sizes_are_the_vit_s_and_its_embedding_is_clip_s(backbone: ViTBackbone):
    assert (backbone.width, backbone.depth, backbone.patch_size, backbone.embed_dim) == (40, 5, 8, 24)


@pytest.mark.parametrize("changes", [{}, {"pre_norm": True}, {"dynamic_img_size": True}, {"init_values": 0.3}])
def test_activations_are_what_timm_s_blocks_put_out(changes: dict[str, Any]):
    backbone = narrow_backbone(**changes)
    outputs: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda *args: outputs.append(args[2])) for block in backbone.image_tower.blocks]
    with torch.no_grad():
        backbone.image_tower(images((48, 48)))
    for hook in hooks:
        hook.remove()
    found = backbone.activations(images((48, 48)), (0, 2, 4))
    assert found.grid == (6, 6)
    for layer, activation in zip((0, 2, 4), found, strict=True):
        torch.testing.assert_close(activation, outputs[layer], rtol=1e-5, atol=1e-5)


def test_prompts_are_clip_s(backbone: ViTBackbone):
    assert torch.equal(backbone.encode_text(["a dog", "sky"]), CLIP.encode_text(["a dog", "sky"]))
    assert torch.equal(backbone.encode_image(images()), CLIP.encode_image(images()))
    masks = torch.zeros(2, 64, 64)
    masks[:, :32] = 1
    for layers in ("last", "all"):
        expected = encode_masked_image(CLIP, images(), masks, layers=layers)
        assert torch.equal(encode_masked_image(backbone, images(), masks, layers=layers), expected)


def test_stopping_early_equals_the_full_run_and_runs_no_block_more():
    backbone = narrow_backbone()
    full = backbone.activations(images(), (1, 3, 4))
    ran: list[torch.nn.Module] = []
    for block in backbone.image_tower.blocks:
        block.register_forward_hook(lambda block, *_: ran.append(block))
    early = backbone.activations(images(), (1, 3))
    assert ran == list(backbone.image_tower.blocks[:4])
    assert len(early) == 2
    assert all(torch.equal(a, b) for a, b in zip(early, full, strict=False))


@pytest.mark.parametrize("size", [(48, 48), (24, 72)])
def test_a_batch_equals_its_images_one_by_one(backbone: ViTBackbone, size: tuple[int, int]):
    batch = images(size, count=3)
    together = backbone.activations(batch, (1, 4))
    assert (together.grid, together.size) == ((6, 6), size)
    for index in range(3):
        alone = backbone.activations(batch[index : index + 1], (1, 4))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[index : index + 1], b, rtol=1e-5, atol=1e-5)


def test_it_is_frozen():
    backbone = narrow_backbone(drop_rate=0.2, proj_drop_rate=0.2).train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())
    assert not backbone.activations(images().requires_grad_(), (1,))[0].requires_grad


def test_the_checksum_sees_both_towers(backbone: ViTBackbone):
    assert backbone.checksum() == narrow_backbone().checksum()
    assert backbone.checksum() != CLIP.checksum()
    changed = narrow_backbone()
    with torch.no_grad():
        changed.image_tower.blocks[4].mlp.fc2.bias[3] += 1e-3
    assert changed.checksum() != backbone.checksum()
    clip = narrow_clip()
    with torch.no_grad():
        clip.text_projection[0, 0] += 1e-3
    changed = ViTBackbone(CLIPBackbone(clip, SimpleTokenizer(), name="narrow"), narrow_tower(), name="narrow_vit")
    assert changed.checksum() != backbone.checksum()


def test_one_step_changes_the_decoder_alone():
    model = CLIPSeg(narrow_backbone(), ModelConfig(extract_layers=(1, 2, 4), reduce_dim=16)).train()
    before = model.backbone.checksum()
    decoder = [parameter.clone() for parameter in model.decoder.parameters()]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    logits = model(images((48, 64)), ["a dog", "sky"])
    assert logits.shape == (2, 48, 64)
    logits.square().mean().backward()
    optimizer.step()
    assert model.backbone.checksum() == before
    assert not any(torch.equal(a, b) for a, b in zip(decoder, model.decoder.parameters(), strict=True))


@pytest.mark.parametrize(
    "changes",
    [{"reg_tokens": 1}, {"class_token": False, "global_pool": "avg"}, {"pos_embed": "none"}, {"no_embed_class": True}],
)
def test_a_vit_of_another_kind_is_refused(changes: dict[str, Any]):
    with pytest.raises(ClipSegError, match=r"no plain ViT with one class token .*choose vit_base_patch16_384"):
        narrow_backbone(**changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_bas_patch16_384", "is not a timm model"),
        (f"{TINY}.nonsense", r"cannot be built: Invalid pretrained tag \(nonsense\)"),
        ("resnet10t", "no plain ViT"),
        ("deit_tiny_distilled_patch16_224", "no plain ViT"),
    ],
)
def test_towers_that_cannot_be(name: str, message: str):
    with pytest.raises(ClipSegError, match=message):
        load_image_tower(name, False)


def test_a_random_tower_is_its_seed_s():
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first = load_image_tower(TINY, False, seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator must be left as it was"
    again, other = load_image_tower(TINY, False, seed=1).state_dict(), load_image_tower(TINY, False, seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_offline_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch):
    build = timm.create_model

    def offline(name: str, pretrained: bool, **sizes: Any) -> torch.nn.Module:
        if pretrained:
            raise OSError("no network\nin two lines")
        return build(name, **sizes)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ClipSegError, match="cannot be downloaded") as caught:
        load_image_tower(TINY, True)
    assert "\n" not in str(caught.value)
    assert f"https://huggingface.co/timm/{TINY}.augreg_in21k_ft_in1k" in str(caught.value)
    assert "model.image_tower_pretrained=PATH" in str(caught.value)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: None)
    with pytest.raises(ClipSegError, match=f"timm has no weights of image_tower='{TINY}'"):
        load_image_tower(TINY, True)


def test_local_weights_are_loaded_strictly(tmp_path: Path):
    state = load_image_tower(TINY, False, seed=5).state_dict()
    # The files of the hub hold the classifier too.
    save_file(state | {"head.weight": torch.zeros(1000, 192), "head.bias": torch.zeros(1000)}, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        found = load_image_tower(TINY, path).state_dict()
        assert all(torch.equal(found[key], state[key]) for key in state)
    save_file({key: value for key, value in state.items() if key != "cls_token"}, tmp_path / "cut.safetensors")
    with pytest.raises(ClipSegError, match="missing cls_token"):
        load_image_tower(TINY, tmp_path / "cut.safetensors")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(ClipSegError, match="holds a list"):
        load_image_tower(TINY, tmp_path / "list.pt")
    with pytest.raises(ClipSegError, match="no such file or folder; name the weights of"):
        load_image_tower(TINY, tmp_path / "nothing.pt")


@pytest.fixture(scope="module")
def vitseg() -> CLIPSeg:
    model = create_model(
        "mini", reduce_dim=8, image_size=96, extract_layers=(3, 7), image_tower=TINY, image_tower_pretrained=False, seed=3
    )
    with torch.no_grad():
        model.decoder.head.weight.mul_(40)
    return model.eval()


def save_checkpoint(model: CLIPSeg, path: Path, **changes: Any) -> Path:
    config = asdict(replace(model.config, **changes)) | {"extract_layers": list(model.config.extract_layers)}
    content = {"model_config": config, "backbone_checksum": model.backbone.checksum(), "model": model.decoder.state_dict()}
    torch.save({"format": "clipseg-checkpoint", "version": 1, **content}, path)
    return path


@torch.no_grad()
def test_a_checkpoint_comes_back_with_its_tower(vitseg: CLIPSeg, tmp_path: Path):
    assert vitseg.config.extract_layers == (3, 7)
    assert (vitseg.config.image_tower, vitseg.config.image_tower_pretrained) == (TINY, False)
    again = load(save_checkpoint(vitseg, tmp_path / "last.pt"))
    assert again.config == vitseg.config
    assert isinstance(again.backbone, ViTBackbone)
    pixels = images((96, 64))
    logits = vitseg(pixels, ["red circle", "square"])
    assert torch.equal(again(pixels, ["red circle", "square"]), logits)
    assert (logits[0] - logits[1]).abs().max() > 0.01


def test_the_tower_s_weights_may_lie_elsewhere(vitseg: CLIPSeg, tmp_path: Path):
    assert isinstance(vitseg.backbone, ViTBackbone)
    weights = tmp_path / "here.safetensors"
    save_file(vitseg.backbone.image_tower.state_dict(), weights)
    path = save_checkpoint(vitseg, tmp_path / "last.pt", image_tower_pretrained=str(tmp_path / "there.safetensors"))
    with pytest.raises(ClipSegError, match=r"there\.safetensors.*no such file"):
        load(path)
    assert load(path, image_tower_pretrained=weights).config.image_tower_pretrained == str(weights)
    save_release(load(path, image_tower_pretrained=weights), tmp_path / "release", card="", extra={})
    assert '"image_tower_pretrained": "here.safetensors"' in (tmp_path / "release" / "config.json").read_text()
    assert load(tmp_path / "release", image_tower_pretrained=weights).config.image_tower == TINY
    save_file(load_image_tower(TINY, False, seed=9).state_dict(), weights)
    with pytest.raises(ClipSegError, match=f"another {TINY} than of image_tower_pretrained=.*here"):
        load(path, image_tower_pretrained=weights)
    plain = save_checkpoint(create_model("mini", reduce_dim=4), tmp_path / "plain.pt")
    with pytest.raises(ClipSegError, match="has no image tower but CLIP's"):
        load(plain, image_tower_pretrained=weights)


def test_a_photo_is_segmented_by_texts_and_by_prompt_images(vitseg: CLIPSeg):
    photo = torch.randint(256, (3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    probabilities = Segmenter(vitseg)(photo, ["red circle", VisualPrompt(photo, torch.ones(50, 70))])
    assert probabilities.shape == (2, 50, 70)
    assert not torch.equal(probabilities[0], probabilities[1])


def test_transformers_layout_has_no_place_for_it(vitseg: CLIPSeg, tmp_path: Path):
    with pytest.raises(ClipSegError, match="only CLIP's own has"):
        save_transformers(vitseg, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("option", [{"image_tower_pretrained": False}, {"image_prompts": "image_tower"}])
def test_what_needs_a_tower_is_refused_without_one(option: dict[str, Any]):
    with pytest.raises(ClipSegError, match="without an image_tower"):
        ModelConfig(**option)


def random_headed(seed: int = 3) -> CLIPSeg:
    config = ModelConfig(
        image_tower="narrow_vit", image_prompts="image_tower", extract_layers=(1, 3), reduce_dim=16, image_size=48, seed=seed
    )
    return CLIPSeg(narrow_backbone(), config).eval()


def test_prompt_images_may_pass_the_tower_and_a_random_head():
    """The class token after the last norm, of the image at the ViT's own size, through a Linear of the seed's."""
    model = random_headed()
    tower: Any = model.backbone.image_tower
    shown = images((32, 64))
    with torch.no_grad():
        token = tower.forward_features(torch.nn.functional.interpolate(shown, size=(48, 48), mode="nearest"))[:, 0]
    torch.manual_seed(3)
    linear = torch.nn.Linear(40, 24)
    torch.testing.assert_close(model.encode_image(shown), linear(token).detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(model.backbone.encode_image(shown), CLIP.encode_image(shown)), "what studies CLIP still finds it"
    assert torch.equal(model.encode_text(["a dog"]), CLIP.encode_text(["a dog"]))


def test_the_random_head_is_kept_and_never_trained(tmp_path: Path):
    model = random_headed()
    drawn = model.encode_image(images())
    assert "prompt_head.weight" not in dict(model.decoder.named_parameters())
    model.decoder.load_state_dict(random_headed(seed=4).decoder.state_dict())
    other = model.encode_image(images())
    assert not torch.equal(other, drawn)
    assert torch.equal(other, random_headed(seed=4).encode_image(images())), "a file's head counts, not what the seed draws"


@torch.no_grad()
def test_a_run_and_a_release_hold_the_random_head(tmp_path: Path):
    options = {
        "reduce_dim": 8,
        "image_size": 96,
        "extract_layers": (3, 7),
        "image_tower": TINY,
        "image_tower_pretrained": False,
    }
    model = create_model("mini", **options, image_prompts="image_tower", seed=3).eval()
    model.prompt_head.weight.mul_(2)
    expected = model.encode_image(images((96, 96)))
    assert torch.equal(load(save_checkpoint(model, tmp_path / "last.pt")).encode_image(images((96, 96))), expected)
    save_release(model, tmp_path / "release", card="", extra={})
    assert torch.equal(load(tmp_path / "release").encode_image(images((96, 96))), expected)
