"""Every number of every recipe, as it was run (docs/paper.md, Sec. 2 and 8): a change of any of them fails here."""

from dataclasses import asdict

import pytest
from composed import EXPERIMENTS, train_settings

# What every row has, unless it is said otherwise.
COMMON = {
    "data.format": "phrasecut",
    "data.exclude": None,
    "data.crop": True,
    "data.negatives": 0.2,
    "data.visual_support": True,
    "data.singletons": "text",
    "prompt.templates": "extended",
    "prompt.ensemble": False,
    "prompt.text_weight": [0.0, 0.5],
    "prompt.visual_prompt": "crop_blur_intensity10",
    "training.steps": 20000,
    "training.batch_size": 64,
    "training.phrases_per_image": 1,
    "training.lr": 1e-3,
    "training.final_lr": 1e-4,
    "training.weight_decay": 0.01,
    "model.backbone": "ViT-B-16-quickgelu",
    "model.pretrained": "openai",
    "model.image_tower": None,
    "model.image_prompts": None,
    "model.extract_layers": (3, 7, 9),
    "model.reduce_dim": 64,
    "model.head": "plain",
    "model.decoder": "clipseg",
    "model.image_size": 352,
    "fold": None,
    "threshold": 0.3,
}
BY_TEXT = {"data.visual_support": False, "prompt.templates": "plain"}
DECONV = {"model.decoder": "deconv", "model.extract_layers": (9,)}
MIXED_EVENLY = {"data.negatives": 0.0, "prompt.text_weight": [0.0, 1.0]}
# By protocol=released; protocol=paper lets CLIP embed prompt images.
VITSEG = {"model.image_tower": "vit_base_patch16_384", "model.image_prompts": "image_tower", "training.lr": 1e-4}
IMAGES_ALONE = {"prompt.text_weight": [0.0, 0.0], "prompt.templates": "plain", "data.singletons": "leave_out"}
COCO = {"data.format": "coco20i", "fold": 0, "training.steps": 7000, "prompt.text_weight": [0.0, 1.0]}
PASCAL = {"data.exclude": "pascal5i_fold0", "fold": 0}
WORDS = {"data.exclude": "affordances"}

RECIPES = {
    "phrasecut_pc_plus": {},
    "phrasecut_refined": {"model.head": "refined", "training.steps": 50000},
    "phrasecut_pc": BY_TEXT,
    "phrasecut_pc_d128": BY_TEXT | {"data.negatives": 0.0, "model.reduce_dim": 128},
    "phrasecut_deconv": BY_TEXT | DECONV | {"data.negatives": 0.0},
    "phrasecut_vitseg_pc": BY_TEXT | VITSEG | {"data.negatives": 0.0},
    "phrasecut_vitseg_pc_plus": VITSEG | IMAGES_ALONE | {"training.lr": 3e-4, "threshold": 0.1},
    "ablation_no_pretraining": {"model.pretrained": None, "training.lr": 3e-4},
    "ablation_no_visual": BY_TEXT,
    "ablation_d16": {"model.reduce_dim": 16},
    "ablation_layer3": {"model.extract_layers": (3,)},
    "ablation_highlight": {"prompt.visual_prompt": "highlight"},
    "ablation_no_negatives": {"data.negatives": 0.0},
    "ablation_negatives50": {"data.negatives": 0.5},
    "pascal5i_pc_plus": PASCAL,
    "pascal5i_pc": PASCAL | MIXED_EVENLY,
    "pascal5i_deconv": PASCAL | MIXED_EVENLY | DECONV,
    "pascal5i_vitseg": PASCAL | VITSEG,
    "zeroshot_unseen10_clipseg": {"data.exclude": "unseen10"},
    "zeroshot_unseen10_deconv": {"data.exclude": "unseen10"} | DECONV,
    "zeroshot_unseen10_vitseg": {"data.exclude": "unseen10"} | VITSEG,
    "zeroshot_unseen4_clipseg": {"data.exclude": "unseen4"},
    "zeroshot_unseen4_deconv": {"data.exclude": "unseen4"} | DECONV,
    "zeroshot_unseen4_vitseg": {"data.exclude": "unseen4"} | VITSEG,
    "coco20i_plain": COCO | {"data.negatives": 0.0},
    "coco20i_negatives": COCO,
    "coco20i_deconv": COCO | DECONV,
    "coco20i_vitseg": COCO | VITSEG | {"data.negatives": 0.0},
    "generalized_pc_plus": WORDS,
    "generalized_lvis": WORDS | {"data.format": "lvis"},
    "generalized_deconv": WORDS | DECONV,
    "generalized_vitseg": WORDS | VITSEG,
}
OF_OUR_OWN = {"mini", "mini_random", "folder", "finetune"}


def test_no_visual_is_pc_to_the_last_key():
    """The paper in miniature has one run for both."""
    found = [
        asdict(train_settings(f"experiment={name}", "data.root=somewhere", "out=somewhere"))
        for name in ("phrasecut_pc", "ablation_no_visual")
    ]
    assert {key for key in found[0] if found[0][key] != found[1][key]} == {"experiment"}


def test_every_experiment_has_its_recipe():
    assert set(RECIPES) | OF_OUR_OWN == set(EXPERIMENTS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_was_run(name: str):
    config = train_settings(f"experiment={name}", "data.root=somewhere")
    found = {}
    for key in COMMON:
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    assert found == COMMON | RECIPES[name]
