"""Training on every format, from the entry point on; and what a training's fold and format cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_data import polygon, write_coco, write_folder, write_lvis

import evaluate
import train
from clipseg.data.classes import COCO_CLASSES, coco20i_fold
from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.readers import coco as readers_coco
from clipseg.data.readers.coco import coco20i_validation
from clipseg.data.readers.lvis import lvis_names, lvis_training
from clipseg.errors import ClipSegError
from clipseg.network import preprocess
from clipseg.run import conditioning, training
from clipseg.run.settings import DataSettings, TrainConfig

pytestmark = pytest.mark.slow
forward = training.forward

BOX = (4, 4, 20, 14)
SMALL = [
    "backbone=mini",
    "model.pretrained=null",
    "model.extract_layers=[1,2]",
    "model.reduce_dim=16",
    "model.image_size=64",
    "training.steps=2",
    "training.batch_size=4",
    "training.validate_every=2",
    "training.validation_images=3",
    "data.workers=0",
    "device=cpu",
    "out=run",
]


def check_training(call, *arguments):
    status, _, err = call(train, *SMALL, *arguments)
    assert (status, err) == (0, "")
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2
    assert Path("run/checkpoints/best.pt").is_file()


def test_a_folder_is_trained_on_and_evaluated(call, tmp_path):
    write_folder(tmp_path / "own", splits=("train", "val", "test"))
    check_training(call, "experiment=folder", "data.root=own", "evaluate_splits=[test]")
    status, _, err = call(evaluate, "checkpoint=run", "benchmark=folder", "device=cpu", "out=again", "data.workers=0")
    assert (status, err) == (0, "")
    in_run, again = (json.loads(Path(name, "metrics.json").read_text()) for name in ("run/eval/test", "again"))
    in_run.pop("seconds"), again.pop("seconds")
    assert in_run == again, "evaluation after training and evaluate.py agree"


def coco(root: Path) -> None:
    """Two images of every class in both splits, each image with eight classes side by side."""
    for split in ("train2014", "val2014"):
        names = [*COCO_CLASSES, *COCO_CLASSES]
        images = {
            1 + start // 8: [(name, polygon((4 * k, 4, 4 * k + 4, 14))) for k, name in enumerate(names[start : start + 8])]
            for start in range(0, 160, 8)
        }
        write_coco(root, images, split=split)


@pytest.mark.parametrize("protocol", ["released", "paper"])
def test_coco20i_trains_on_the_other_folds_and_is_evaluated_on_its_own(call, tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(readers_coco, "LEAST_PIXELS", 1)
    coco(tmp_path / "coco")
    held_out = set(coco20i_fold(3))
    validation = coco20i_validation(tmp_path / "coco", fold=3, count=60)
    assert len(validation.episodes) == 60
    assert not {episode.name for episode in validation.episodes} & held_out
    assert all(task.support is not None for task in validation[0].tasks)

    batches = []
    monkeypatch.setattr(training, "forward", lambda m, batch, c: batches.append(batch) or forward(m, batch, c))
    resized = set()
    for module in (preprocess, conditioning):
        as_it_is = module.resize_images
        monkeypatch.setattr(module, "resize_images", lambda *a, resize, f=as_it_is: resized.add(resize) or f(*a, resize=resize))
    listed = {"person": (1, 11), "bench": (2, 12)}
    named = {name: [f"train2014/COCO_train2014_{i:012d}.jpg" for i in images] for name, images in listed.items()}
    Path("lists.json").write_text(json.dumps(named))
    settings = ["data.negatives=0.5", "fold=3", "data.root=coco", f"protocol={protocol}", "data.class_lists=lists.json"]
    check_training(call, "experiment=coco20i_plain", *settings)
    assert resized == {"antialias"}, "in training and validation, queries and supports"
    assert {key.split("__")[1] for batch in batches for key in batch.keys} == set(listed)
    # A negative's support is empty as released; in the sound way its target is, and its phrase is another.
    released = [not mask.any() for batch in batches for mask in batch.support_masks]
    sound = [not mask.any() for batch in batches for mask in batch.masks]
    assert (any(released), any(sound)) == (protocol == "released", protocol == "paper")
    one, other = "COCO_val2014_000000000001", "COCO_val2014_000000000011"
    episodes = [{"query": a, "name": "truck", "support": b} for a, b in ((one, other), (other, one))]
    content = {"benchmark": "coco20i", "split": "val2014", "fold": 3, "episodes": episodes}
    Path("fixed.json").write_text(json.dumps(content))
    arguments = ["checkpoint=run", "benchmark=coco20i_one_shot", "episodes=fixed.json", "device=cpu", "out=out"]
    status, printed, _ = call(evaluate, *arguments, "fold=3")
    assert status == 0
    assert "33.2 at 0.10" in printed, "the paper's value of coco20i_plain, at its threshold"
    status, _, err = call(evaluate, *arguments, "fold=0")
    assert (status, err.count("\n")) == (2, 1)
    assert "trained with fold 3 held out" in err


def test_lvis_is_trained_on_by_the_names_of_its_classes(call, tmp_path):
    images = {i: [(name, polygon(BOX)) for name in ("bus_(vehicle)", "zebra")] for i in (3, 4, 5)}
    for split in ("train", "val"):
        write_lvis(tmp_path / "lvis", images, split=split)
    check_training(call, "experiment=generalized_lvis", "data.root=lvis")

    def zebra(names):
        return np.array([name == "zebra" for name in names])

    for data in (
        lvis_names(tmp_path / "lvis", exclude=zebra),
        lvis_training(tmp_path / "lvis", ReaderOptions(training=True, exclude=zebra, visual_support=True)),
    ):
        assert {task.phrase for item in range(len(data)) for task in data[0, item].tasks} == {"bus"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["experiment=folder", "data.format=voc"], "data.format='voc' is unknown; expected one of phrasecut, folder, coco20i"),
        (["experiment=folder"], "not a folder of your own"),
        (["experiment=phrasecut_pc", "data.format=coco20i"], "data.format=coco20i needs the fold that is held out; add fold=0"),
        (["experiment=pascal5i_pc", "fold=4"], "fold=4 does not exist; expected one of 0, 1, 2, 3"),
        (["experiment=phrasecut_pc", "fold=1"], "fold=1: experiment phrasecut_pc has no folds"),
        (["experiment=pascal5i_pc", "fold=1", "data.exclude=pascal5i_fold2"], "does not fit fold=1"),
        (["experiment=coco20i_plain", "data.exclude=unseen4"], "COCO-20i holds classes out by fold"),
        (["experiment=coco20i_plain", "data.fraction=0.5"], "data.fraction=0.5 means nothing to data.format=coco20i"),
        (["experiment=coco20i_plain", "data.flip=0.5"], "data.flip=0.5 means nothing to data.format=coco20i"),
        (["experiment=phrasecut_pc", "data.class_lists=x.json"], "data.class_lists=x.json: only COCO-20i draws from lists"),
    ],
)
def test_what_cannot_be_trained_is_one_line(call, tmp_path, arguments, named):
    (tmp_path / "empty").mkdir()
    status, _, err = call(train, *SMALL, "data.root=empty", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert named in err
    assert not Path("run/checkpoints").exists()


def test_a_fold_names_the_phrases_it_leaves_out():
    config = TrainConfig(fold=2, data=DataSettings(root="x", exclude="pascal5i_fold2"))
    assert config.fold == 2
    with pytest.raises(ClipSegError, match="does not fit fold=None"):
        TrainConfig(data=DataSettings(root="x", exclude="pascal5i_fold2"))
