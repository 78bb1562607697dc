"""Imported when met: what training, evaluating and predicting on PhraseCut load, and what they do not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

MOST_MODULES, MOST_LINES = 74, 9600
STRANGERS = ("clipseg.studies", "clipseg.paper", "clipseg.data.readers", "clipseg.data.mini", "clipseg.network.formats")
SMALL = ["model.pretrained=null", "model.extract_layers=[1,2]", "model.reduce_dim=16", "model.image_size=64"]
# Runs an entry point up to the call that is named, then tells what is loaded. open_clip imports timm and Jinja.
SCRIPT = """
import importlib, json, runpy, sys
module, name = {stop!r}.split(":")
owner = importlib.import_module(module)
*path, last = name.split(".")
for part in path:
    owner = getattr(owner, part)
class Reached(BaseException):
    pass
def stop(*arguments, **options):
    raise Reached
setattr(owner, last, stop)
sys.argv = {argv!r}
sys.path.insert(0, {root!r})
try:
    runpy.run_path({entry!r}, run_name="__main__")
except Reached:
    modules = dict(sys.modules)
    print("LOADED", json.dumps({{name: getattr(module, "__file__", None) for name, module in modules.items()}}))
"""


def loaded(entry: str, *arguments: str, stop: str) -> dict[str, str | None]:
    script = SCRIPT.format(stop=stop, argv=[entry, *arguments], root=str(ROOT), entry=str(ROOT / entry))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[0].removeprefix("LOADED"))


@pytest.fixture
def run_folder(phrasecut_root, tmp_path: Path, call) -> Path:
    import train

    root = phrasecut_root(2)
    common = ["experiment=mini", "data.train_split=train", "data.workers=0", "evaluate_splits=[]", "training.steps=1"]
    batch = ["training.batch_size=1", "training.phrases_per_image=1"]
    status, _, error = call(train, *common, *batch, *SMALL, f"data.root={root}", f"out={tmp_path / 'run'}")
    assert status == 0, error
    return tmp_path / "run"


def test_what_phrasecut_needs_is_what_is_loaded(run_folder: Path, tmp_path: Path):
    root = tmp_path / "phrasecut"
    training = ["experiment=phrasecut_pc", "backbone=mini", "data.train_split=train", "data.val_split=val", "data.workers=0"]
    parts = {
        "train": loaded(
            "train.py",
            *training,
            *SMALL,
            "training.batch_size=1",
            f"data.root={root}",
            f"out={tmp_path / 'one'}",
            stop="clipseg.run.log:RunLog.training_step",
        ),
        "evaluate": loaded(
            "evaluate.py",
            f"checkpoint={run_folder}",
            f"data.root={root}",
            "data.workers=0",
            f"out={tmp_path / 'two'}",
            stop="clipseg.run.evaluation:Evaluation.write",
        ),
        "predict": loaded(
            "clipseg/__main__.py",
            "predict",
            str(root / "images" / "1.jpg"),
            "red",
            "--weights",
            str(run_folder),
            "--out",
            str(tmp_path / "three"),
            stop="clipseg.commands.prediction_files:_write_png",
        ),
    }
    for entry, modules in parts.items():
        settings = {name for name in modules if name.endswith(".settings") or name in ("clipseg.studies",)}
        studies = {name.rpartition(".")[0] for name in settings}  # a benchmark's keys are read with all others
        met = {name for name in modules if name.startswith(STRANGERS)} - settings - studies
        assert not met, f"{entry} imports {met}"
        assert not {"matplotlib", "pycocotools", "clipseg.measure.page", "clipseg.network.vit_tower"} & modules.keys(), entry
    ours = {name: file for modules in parts.values() for name, file in modules.items() if name.split(".")[0] == "clipseg"}
    assert len(ours) <= MOST_MODULES, sorted(ours)
    assert sum(len(Path(str(file)).read_text(encoding="utf-8").splitlines()) for file in ours.values()) <= MOST_LINES
