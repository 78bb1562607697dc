"""Configs: every experiment composes and is checked; a typo, a wrong type or an impossible value stops a run at its start."""

from dataclasses import is_dataclass

import pytest
from composed import EXPERIMENTS, settings, train_settings
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from places import CONFIGS

from clipseg.entry import to_yaml
from clipseg.errors import ClipSegError
from clipseg.measure.paper import ROWS
from clipseg.network.config import ModelConfig
from clipseg.run.settings import TrainConfig, evaluate_schema


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_names_a_model(name):
    config = train_settings(f"experiment={name}", "data.root=somewhere")
    assert config.experiment == name
    assert isinstance(config.model, ModelConfig)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "mini"])
def test_in_small_a_row_stays_what_it_is(name):
    full, small = (flat(train_settings(f"experiment={name}", "data.root=mini", *scale)) for scale in ([], ["scale=mini"]))
    scaling = {f"model.{key}" for key in ("backbone", "pretrained", "image_tower", "image_tower_pretrained", "image_size")}
    scaling |= {
        f"training.{key}"
        for key in ("steps", "batch_size", "phrases_per_image", "validate_every", "checkpoint_every", "feature_cache")
    }
    assert {key for key in full if full[key] != small[key]} <= scaling | {"data.workers", "out"}
    assert (small["data.root"], small["model.backbone"], small["model.image_size"]) == ("mini", "mini", 176)
    assert (small["model.pretrained"] is None) == (full["model.pretrained"] is None)
    # Nothing is downloaded: an image tower is small and random, and where there is none the keys stay as they were.
    assert (small["model.image_tower"] is None) == (full["model.image_tower"] is None)
    assert small["model.image_tower_pretrained"] == (full["model.image_tower"] is None)
    assert small["training.steps"] < full["training.steps"]


def flat(part: object, prefix: str = "") -> dict[str, object]:
    """Every key of a config with its dots, and its value."""
    keys: dict[str, object] = {}
    for name, value in vars(part).items():
        keys |= flat(value, f"{prefix}{name}.") if is_dataclass(value) else {f"{prefix}{name}": value}
    return keys


@pytest.mark.parametrize(
    ("arguments", "splits"),
    [
        (["experiment=phrasecut_pc", "data.root=x"], ("train", "miniv")),
        (["experiment=phrasecut_pc", "data.root=mini"], ("train", "val")),
        (["experiment=folder", "data.root=x"], ("train", "val")),
        (["experiment=coco20i_plain", "data.root=x"], ("train2014", "val2014")),
        (["experiment=coco20i_plain", "data.root=x", "data.train_split=train2017"], ("train2017", "val2014")),
        (["experiment=generalized_lvis", "data.root=mini"], ("train", "val")),
    ],
)
def test_auto_means_the_format_s_own_splits(arguments, splits):
    data = train_settings(*arguments).data
    assert (data.train_split, data.val_split) == splits


def test_the_sweep_in_miniature_has_a_folder_a_job():
    one = train_settings("experiment=ablation_d16", "seed=2", "sweep=miniature")
    assert (one.out, one.resume, one.data.root) == ("outputs/miniature/ablation_d16/seed_2", "auto", "mini")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_what_it_is(name):
    head = (CONFIGS / "experiment" / f"{name}.yaml").read_text()
    assert f"python train.py experiment={name}" in head or (name == "mini" and "python train.py" in head)
    assert "# Paper:" in head


def test_the_paper_s_row_is_the_paper_s_training():
    config = train_settings("experiment=phrasecut_pc", "data.root=somewhere")
    training, model = config.training, config.model
    assert (training.steps, training.batch_size, training.phrases_per_image) == (20000, 64, 1)
    assert (training.lr, training.final_lr, training.weight_decay) == (1e-3, 1e-4, 0.01)
    assert (model.backbone, model.pretrained) == ("ViT-B-16-quickgelu", "openai")
    assert (model.extract_layers, model.reduce_dim, model.head, model.image_size) == ((3, 7, 9), 64, "plain", 352)


def test_settings_survive_the_run_folder():
    config = train_settings("training.steps=7")
    again = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(to_yaml(config)))
    assert OmegaConf.to_object(again) == config


def test_a_required_path_is_named():
    with pytest.raises(ClipSegError, match=r"required, and not given: data\.root; add data\.root=VALUE"):
        train_settings("experiment=phrasecut_pc")
    with pytest.raises(ClipSegError, match="checkpoint"):
        settings("evaluate", evaluate_schema())


@pytest.mark.parametrize(
    "override", ["training.step=3", "model.backbon.name=x", "experiment=nothing", "training.steps=many", "data.workers=1.5"]
)
def test_a_typo_or_a_wrong_type_stops(override):
    with pytest.raises((HydraException, OmegaConfBaseException)):
        train_settings(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps=0", "training.steps=0 must be at least 1"),
        ("training.batch_size=5", "no multiple of training.phrases_per_image=2"),
        ("training.final_lr=1", "between 0 and training.lr"),
        ("training.amp=fp8", "expected one of auto, off, bf16, fp16"),
        ("threshold=1.5", r"threshold=1.5 must lie in \[0, 1\]"),
        ("data.workers=-1", "data.workers=-1 must be at least 0"),
        ("training.validation_images=0", "training.validation_images=0 must be at least 1"),
        ("training.weight_decay=-1", r"training.weight_decay=-1.0 must be at least 0"),
        ("training.weight_decay=nan", r"training.weight_decay=nan must be at least 0"),
        ("training.lr=inf", "between 0 and training.lr=inf"),
        ("protocol=authors", "protocol='authors' is unknown; expected one of released, paper"),
        ("seed=-1", "seed=-1 must lie between 0 and 268435455"),
        ("seed=10000000000", "seed=10000000000 must lie between"),
    ],
)
def test_what_cannot_be_is_refused(override, message):
    with pytest.raises(ClipSegError, match=message):
        train_settings(override)


def test_a_fold_reaches_the_rule_of_what_is_left_out():
    assert train_settings("experiment=pascal5i_pc", "data.root=x", "fold=3").data.exclude == "pascal5i_fold3"
    assert train_settings("experiment=pascal5i_deconv", "data.root=x", "fold=1").data.exclude == "pascal5i_fold1"


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.experiment and row.threshold is not None],
    ids=lambda row: f"{row.table} {row.label} {row.benchmark}",
)
def test_a_row_is_read_at_the_threshold_of_its_command(row):
    head = (CONFIGS / "experiment" / f"{row.experiment}.yaml").read_text()
    (command,) = [line for line in head.splitlines() if "evaluate.py" in line and f"benchmark={row.benchmark} " in f"{line} "]
    assert row.threshold == float(dict(word.split("=") for word in command.split() if "=" in word).get("threshold", 0.3))


PAPER_ROWS = sorted({row.experiment for row in ROWS if row.experiment})


@pytest.mark.parametrize("experiment", PAPER_ROWS)
def test_a_row_of_the_paper_is_an_experiment_whose_head_holds_its_values(experiment):
    head = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text()
    for row in (row for row in ROWS if row.experiment == experiment and row.benchmark != "phrasecut_visual"):
        assert f"benchmark={row.benchmark}" in head
        if not experiment.startswith("phrasecut"):  # those also stand in Tab. 9, at the best threshold
            assert all(f"{value:.1f}" in head for value in row.values.values())


@pytest.mark.parametrize(
    ("benchmark", "split", "templates"),
    [
        (["benchmark=phrasecut"], "test", "plain"),
        (["benchmark=pascal5i_text", "fold=0"], "val", "fixed"),
        (["benchmark=coco20i_one_shot", "fold=0"], "val2014", "plain"),
        (["benchmark=lvis_meronymy", "split=train", "prompt.templates=imagenet"], "train", "imagenet"),
    ],
)
def test_auto_means_the_benchmark_s_own(benchmark, split, templates):
    config = settings("evaluate", evaluate_schema(), "checkpoint=run", *benchmark)
    assert (config.split, config.prompt.templates) == (split, templates)
    assert config.prompt.text_weight == [0, 0]
    assert config.protocol == "released"
    with pytest.raises(ClipSegError, match="protocol='paper ' is unknown; expected one of released, paper"):
        settings("evaluate", evaluate_schema(), "checkpoint=run", *benchmark, "protocol='paper '")
