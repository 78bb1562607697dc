"""The study of visual prompts on synthetic scenes: its probabilities, its files, and every variant by its name."""

import json
import math
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from places import CONFIGS
from timm.models.vision_transformer import VisionTransformer

import clipseg
import evaluate
from clipseg.data.mini import phrasecut as mini
from clipseg.entry import launch
from clipseg.errors import ClipSegError
from clipseg.measure.paper import PROMPT_DELTAS
from clipseg.network.attention_mask import encode_masked_image
from clipseg.network.preprocess import normalise, resize_images, resize_objects
from clipseg.network.vit_tower import ViTBackbone
from clipseg.prompts.attention import ALL_VARIANTS, ATTENTION_VARIANTS, choose_variants
from clipseg.prompts.visual import VARIANTS, engineer
from clipseg.run.conditioning import Conditioner, embed_prompt_images
from clipseg.run.distributed import Processes
from clipseg.run.settings import EvaluationData, PromptSettings, evaluate_schema
from clipseg.studies.visual_prompts import run as study_run
from clipseg.studies.visual_prompts.numbers import PromptDeltas
from clipseg.studies.visual_prompts.run import PromptStudy, object_source


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Forty scenes of the mini data, of which some name at least three kinds of things."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "SPLITS", {"train": 0, "val": 0, "test": 40})
        return mini.materialize(tmp_path_factory.mktemp("drawn") / "mini")


def source_of(root):
    return object_source(root, split="test", settings=EvaluationData())


def run(model, root, **options):
    study = PromptStudy(model.backbone, source_of(root), **options)
    return study.run(provenance={"split": "test"}, processes=Processes())


@pytest.mark.slow
def test_probabilities_are_those_of_a_slow_loop(seeing_model, root):
    results = run(seeing_model, root, variants=("crop", "clip_mask_cls_all_scores_times_mask"))
    source = source_of(root)
    objects = {thing.key: thing for item in range(len(source)) for thing in source[item]}
    assert set(results.key.tolist()) == objects.keys()
    scale = float(seeing_model.backbone.clip.logit_scale.exp())
    for row in range(0, len(results), 3):
        thing = objects[str(results.key[row])]
        image, mask = resize_images([thing.image], (352, 352)), resize_objects([thing.mask], (352, 352))
        native = seeing_model.backbone.clip.visual.image_size[0]
        smaller = torch.nn.functional.interpolate(normalise(image), size=native, mode="bilinear")
        shown = {
            "original": seeing_model.encode_image(smaller),
            "crop": seeing_model.encode_image(engineer(image, mask, VARIANTS["crop"], normalise=normalise, size=native)[0]),
            "clip_mask_cls_all_scores_times_mask": encode_masked_image(
                seeing_model.backbone, normalise(image), mask, layers="all", rows="cls", how="scores_times_mask"
            ),
        }
        probability = {}
        for variant, embedding in shown.items():
            weights = {}
            for name in thing.names:
                text = seeing_model.encode_text([f"a photo of a {name}"])
                weights[name] = math.exp(scale * float(torch.cosine_similarity(embedding, text)))
            probability[variant] = weights[thing.name] / sum(weights.values())
        assert results.original[row] == pytest.approx(probability["original"], abs=1e-4)
        assert results.engineered[row].tolist() == pytest.approx([probability[v] for v in results.variants], abs=1e-4)
        assert results.choices[row] == len(thing.names) >= 3


def test_objects_are_engineered_and_mixed_up_as_they_were():
    assert (study_run.SIDE, study_run.BATCH, study_run.TEMPLATE) == (352, 32, "a photo of a {}")


def test_lvis_is_read_where_its_annotations_are(tmp_path):
    (tmp_path / "lvis_v1_train.json").write_text("{}")
    with pytest.raises(ClipSegError, match=r"lvis_v1_train\.json: no list of categories"):
        object_source(tmp_path, split="train", settings=EvaluationData())


def test_what_shows_an_object_raises_its_name_s_probability(seeing_model, root):
    """At 176 pixels, the size of the scenes, the bundled CLIP sees what is left alone; hiding nothing changes nothing."""
    variants = ("intensity0", "clip_mask_tokens_all_minus_infinity", "original")
    results = run(seeing_model, root, variants=variants, image_size=176)
    assert results.deltas[:, 0].mean() > 20
    assert results.deltas[:, 1].mean() > 20
    assert np.abs(results.deltas[:, 2]).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "row", "same"),
    [
        ("released", "crop_intensity10", "blur_intensity10"),
        ("released", "clip_mask_cls_all", None),
        ("paper", "crop_intensity10", None),
        ("paper", "clip_mask_cls_last", "clip_mask_cls_last_scores_times_mask"),
        ("paper", "clip_mask_cls_all", "clip_mask_cls_all_scores_times_mask"),
        ("paper", "clip_mask_tokens_all", "clip_mask_tokens_all_scores_times_mask"),
    ],
)
def test_rows_that_were_not_what_they_are_called(seeing_model, root, protocol, row, same):
    """One row of Tab. 2 was not cropped, three had the masks of other images; the paper's protocol does what they say."""
    others = ("blur_intensity10", "clip_mask_cls_all_scores_times_mask", *([same] if same else []))
    results = run(seeing_model, root, variants=(row, *others), protocol=protocol)
    equal = [np.array_equal(results.engineered[:, 0], results.engineered[:, 1 + place]) for place in range(len(others))]
    assert equal == [name == same for name in others]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["blur", "clip_mask_cls_all"])
def test_shards_are_the_whole(seeing_model, root, monkeypatch, variant):
    monkeypatch.setattr(study_run, "BATCH", 8)

    class Half(Processes):
        def gather(self, value):
            return [value]

    study = PromptStudy(seeing_model.backbone, source_of(root), variants=(variant,))
    whole = study.run(provenance={}, processes=Processes())
    halves = [study.run(provenance={}, processes=Half(rank, 2)) for rank in range(2)]
    assert sorted([*halves[0].key, *halves[1].key]) == whole.key.tolist()
    for half in halves:
        rows = np.searchsorted(whole.key, half.key)
        np.testing.assert_allclose(half.engineered, whole.engineered[rows], atol=1e-5)


@pytest.mark.slow
def test_the_entry_writes_figures_and_a_page(seeing_model, root, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clipseg, "load", lambda checkpoint, **options: seeing_model)
    arguments = ["checkpoint=run", "benchmark=visual_prompts", f"data.root={root}", "out=here", "device=cpu"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    assert launch(evaluate.evaluate, evaluate_schema(), configs=CONFIGS, name="evaluate") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    metrics = json.loads(Path("here/metrics.json").read_text())
    results = PromptDeltas.load("here")
    assert results.variants == choose_variants("all")
    assert len(results.variants) == 21
    for variant in results.variants:
        assert metrics[f"delta/{variant}"] == pytest.approx(results.deltas.mean(axis=0)[results.variants.index(variant)])
        assert variant in printed.out
    assert results.provenance["benchmark"] == "visual_prompts"
    page = Path("here/report.html").read_text()
    # Six objects, each as it is, by twelve variants of its pixels, and one picture for all attention masks.
    assert page.count("data:image/jpeg;base64,") == 6 * 14
    assert "<svg" in page


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("variant=blurr", "variant='blurr' is unknown; expected all or one of dye_red"),
        ("variant=original", "variant='original'"),
        ("image_size=100", "100x100 is no multiple of the patch size 16"),
        ("data.root=nowhere", "nowhere"),
        ("split=tset", "tset"),
    ],
)
def test_a_bad_argument_is_one_line(seeing_model, root, monkeypatch, tmp_path, capsys, override, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clipseg, "load", lambda checkpoint, **options: seeing_model)
    arguments = ["checkpoint=run", "benchmark=visual_prompts", f"data.root={root}", "out=here", override]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    assert launch(evaluate.evaluate, evaluate_schema(), configs=CONFIGS, name="evaluate") == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not Path("here").exists()


def test_masks_are_shown_at_the_patches_of_clip_and_not_of_a_tower_beside_it(seeing_model, root):
    tower = VisionTransformer(img_size=112, patch_size=8, embed_dim=8, depth=1, num_heads=1, num_classes=0)
    shown = []
    for backbone in (seeing_model.backbone, ViTBackbone(seeing_model.backbone, tower, name="finer patches")):
        study = PromptStudy(backbone, source_of(root), variants=("clip_mask_cls_all",), image_size=112)
        (sheet,) = islice(study._sheets(0), 1)
        shown.append(sheet.pictures[-1].pixels)
    assert backbone.patch_size == 8
    assert np.array_equal(*shown)


def test_every_row_of_the_table_is_a_variant():
    assert PROMPT_DELTAS.keys() <= set(ALL_VARIANTS)
    assert len(choose_variants("all")) == 21
    assert choose_variants("blur") == ("blur",)


MIXED_UP = [name for name in ATTENTION_VARIANTS if ATTENTION_VARIANTS[name].how == "mixed_up"]


@pytest.mark.parametrize("variant", [name for name in ALL_VARIANTS if name not in MIXED_UP])
def test_every_variant_is_a_choice_of_training(seeing_model, variant):
    condition = Conditioner(PromptSettings(visual_prompt=variant))
    image = torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(50, 60, dtype=torch.uint8)
    mask[10:30, 20:40] = 1
    batch = SimpleNamespace(support_images=[image], support_masks=[mask], blank_index=torch.tensor([]))
    found = condition.visual(seeing_model, batch)
    images, masks = resize_images([image], (64, 64)), resize_objects([mask], (64, 64))
    assert torch.equal(found, embed_prompt_images(seeing_model.backbone, images, masks, variant))
    assert torch.equal(found, seeing_model.encode_image(normalise(images))) == (variant == "original")


@pytest.mark.parametrize("variant", MIXED_UP)
def test_masks_are_mixed_up_in_the_study_alone(variant):
    with pytest.raises(ClipSegError, match=f"one another's masks.*; choose {variant}_scores_times_mask or"):
        Conditioner(PromptSettings(visual_prompt=variant))


def test_an_unknown_variant_of_training_is_refused():
    with pytest.raises(
        ClipSegError, match=r"prompt.visual_prompt='blurr' unknown; expected one of original, .*clip_mask_cls_all"
    ):
        Conditioner(PromptSettings(visual_prompt="blurr"))
