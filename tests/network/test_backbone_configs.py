"""The backbones that ship as configs, and the tables' rows that change the backbone: composed, and run as narrow clones."""

import open_clip
import pytest
import torch
from composed import train_settings
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from places import CONFIGS

from clipseg.network.backbone import CLIPBackbone
from clipseg.network.clip_weights import load_backbone
from clipseg.network.config import ModelConfig
from clipseg.network.model import CLIPSeg, create_model

NAMES = sorted(path.stem for path in (CONFIGS / "backbone").glob("vit_*.yaml"))


def model_settings(*overrides: str) -> ModelConfig:
    return train_settings(*overrides, "data.root=somewhere").model


def narrow_clone(name: str) -> CLIPBackbone:
    """An open_clip model with its own depth, patch and native size, and random weights a small fraction as wide."""
    vision = open_clip.get_model_config(name)["vision_cfg"] | {"width": 16, "head_width": 8}
    torch.manual_seed(0)
    clip = CLIP(24, CLIPVisionCfg(**vision), CLIPTextCfg(width=16, heads=2, layers=1), quick_gelu=True)
    return CLIPBackbone(clip, SimpleTokenizer(), name=f"narrow {name}")


def test_the_backbones_there_are():
    assert NAMES == ["vit_b16", "vit_b32", "vit_l14", "vit_l14_336"]


@pytest.mark.parametrize("name", NAMES)
def test_openai_s_weights_fit_the_model_s_activation(name: str):
    settings = model_settings("experiment=phrasecut_pc", f"backbone={name}")
    assert "openai" in open_clip.list_pretrained_tags_by_model(settings.backbone)
    assert open_clip.get_model_config(settings.backbone)["quick_gelu"]
    assert open_clip.get_pretrained_cfg(settings.backbone, settings.pretrained)["quick_gelu"]


@pytest.mark.parametrize("head", ["plain", "refined"])
@pytest.mark.parametrize(
    ("name", "patch_size", "layers"),
    [("vit_b32", 32, (3, 7, 9)), ("vit_l14", 14, (6, 14, 18)), ("vit_l14_336", 14, (6, 14, 18))],
)
def test_a_narrow_clone_segments_at_its_size(name: str, patch_size: int, layers: tuple[int, ...], head: str):
    settings = model_settings("experiment=phrasecut_pc", f"backbone={name}", f"model.head={head}")
    backbone = narrow_clone(settings.backbone)
    assert backbone.patch_size == patch_size
    assert tuple(settings.extract_layers) == layers
    size = settings.image_size
    model = CLIPSeg(backbone, ModelConfig(extract_layers=layers, reduce_dim=8, head=head, image_size=size)).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, size, size), ["a dog"]).shape == (1, size, size)
        assert model(torch.randn(2, 3, 2 * patch_size, 3 * patch_size), ["a dog", "sky"]).shape[1:] == (
            2 * patch_size,
            3 * patch_size,
        )


ONE_LAYER = {"ablation_layer3": 3, "phrasecut_deconv": 9, "generalized_deconv": 9, "zeroshot_unseen4_deconv": 9}


@pytest.mark.parametrize(("experiment", "layer"), ONE_LAYER.items())
def test_an_experiment_s_own_layer_wins_over_the_backbone_s(experiment: str, layer: int):
    for backbone in ("vit_b16", "vit_l14"):
        assert model_settings(f"experiment={experiment}", f"backbone={backbone}").extract_layers == (layer,)


@pytest.mark.parametrize(
    ("arguments", "tower"),
    [
        ([], "image_tower"),
        (["protocol=paper"], "clip"),
        (["model.image_prompts=clip"], "clip"),
        (["model.image_tower=null"], None),
    ],
)
def test_what_embeds_the_prompt_images_of_vitseg(arguments: list[str], tower: str | None):
    config = train_settings("experiment=phrasecut_vitseg_pc_plus", "data.root=somewhere", *arguments)
    assert config.model.image_prompts == tower


def test_where_the_tower_s_weights_come_from_is_one_key():
    key = "model.image_tower_pretrained"
    experiment = "experiment=phrasecut_vitseg_pc"
    assert model_settings(experiment, f"{key}=false").image_tower_pretrained is False
    assert model_settings(experiment, f"{key}=some/file.pt").image_tower_pretrained == "some/file.pt"


def test_no_pretraining_is_random():
    settings = model_settings("experiment=ablation_no_pretraining")
    assert settings.pretrained is None
    assert settings.image_tower is None
    assert train_settings("experiment=ablation_no_pretraining", "data.root=somewhere").training.lr == 3e-4
    trained, random = create_model("mini"), create_model("mini", None)
    ours, theirs = (dict(model.backbone.clip.named_parameters()) for model in (random, trained))
    matrices = [key for key, tensor in ours.items() if tensor.ndim == 2]
    assert len(matrices) > 50
    assert not any(torch.equal(ours[key], theirs[key]) for key in matrices)
    # As the run's own: the same for the same seed, another for another.
    assert load_backbone("mini", None, seed=0).checksum() == random.backbone.checksum()
    assert create_model("mini", None, seed=1).backbone.checksum() != random.backbone.checksum()
    assert load_backbone("mini", "mini", seed=1).checksum() == trained.backbone.checksum()
