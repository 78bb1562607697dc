"""One run in two processes: the figures of one, one line where one of them fails, and no file that is not whole."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT

from clipseg.data.mini.phrasecut import materialize
from clipseg.measure.results import Results
from clipseg.run.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

TRAINING = [
    "data.root=data",
    "data.workers=0",
    "model.image_size=64",
    "training.steps=4",
    "training.batch_size=16",  # four images a step, each with up to four phrases: the processes have unequal shares
    "training.phrases_per_image=4",
    "training.checkpoint_every=2",
    "training.validate_every=2",
    "training.log_every=1",
    "evaluate_splits=[]",
    "resume=auto",
]
EVALUATION = ["checkpoint=in_one/checkpoints/last.pt", "data.root=data", "data.workers=0", "split=val"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the jobs have been run: training and evaluation by one process and by two, two accidents, two resumes."""
    folder = tmp_path_factory.mktemp("processes")
    copy_some_of_mini(folder / "data", {"train": 20, "val": 5})
    jobs = [
        job("train", "in_one", 1, TRAINING),
        job("train", "in_two", 2, TRAINING),
        job("evaluate", "evaluated_by_one", 1, EVALUATION),
        job("evaluate", "evaluated_by_two", 2, EVALUATION),
        job("train", "killed", 2, TRAINING, harm="kill"),
        job("train", "unreadable", 2, TRAINING, harm="unreadable"),
        job("train", "one_then_two", 2, TRAINING, resumes="in_one"),
        job("train", "two_then_one", 1, TRAINING, resumes="in_two"),
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(ROOT / "tests" / "system" / "two_processes.py"), "jobs.json"]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, timeout=900)
    return folder


def job(entry: str, name: str, processes: int, arguments: list[str], **more: str) -> dict[str, Any]:
    return {"entry": entry, "name": name, "processes": processes, "arguments": [*arguments, f"out={name}"], **more}


def copy_some_of_mini(root: Path, splits: Mapping[str, int]) -> None:
    """The first so many images of each split of the mini data."""
    mini, images = materialize(), []
    (root / "images").mkdir(parents=True)
    entries = json.loads((mini / "image_data_split.json").read_text())
    for split, count in splits.items():
        chosen = [entry for entry in entries if entry["split"] == split][:count]
        numbers = {entry["image_id"] for entry in chosen}
        tasks = json.loads((mini / f"refer_{split}.json").read_text())
        (root / f"refer_{split}.json").write_text(json.dumps([task for task in tasks if task["image_id"] in numbers]))
        for number in numbers:
            shutil.copy(mini / "images" / f"{number}.jpg", root / "images")
        images += chosen
    (root / "image_data_split.json").write_text(json.dumps(images))


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def printed(folder: Path, name: str, stream: str) -> str:
    return "".join(path.read_text() for path in sorted((folder / "logs" / name).rglob(f"{stream}.log")))


def statuses(folder: Path, name: str) -> set[int]:
    """The exit statuses that the launcher noted of the processes that failed; it may end the last of them before it looks."""
    found = set(json.loads((folder / "status.json").read_text())[name].values())
    assert found, f"{name} should have failed"
    return found


def test_evaluation_counts_the_same_and_each_sample_once(folder):
    one, two = Results.load(folder / "evaluated_by_one"), Results.load(folder / "evaluated_by_two")
    assert len(set(one.image_key.tolist())) == 5
    for name in ("key", "image_key", "phrase", "group", "height", "width", "official_intersection", "official_union"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    for ours, theirs in zip(one.counts.columns, two.counts.columns, strict=True):
        assert np.array_equal(ours, theirs)
    figures = [json.loads((folder / name / "metrics.json").read_text()) for name in ("evaluated_by_one", "evaluated_by_two")]
    assert figures[0] | {"seconds": 0} == figures[1] | {"seconds": 0}


@pytest.mark.parametrize("name", ["in_two", "one_then_two", "two_then_one"])
def test_without_dropout_two_processes_train_as_one(folder, name):
    one, other = records(folder / "in_one"), records(folder / name)
    assert [record["step"] for record in other] == [1, 2, 3, 4]
    for ours, theirs in zip(one, other, strict=True):
        assert ours.keys() == theirs.keys()
        for key in (key for key in ours if not key.startswith(("speed/", "memory/"))):
            assert theirs[key] == pytest.approx(ours[key], rel=1e-4, abs=1e-5), (ours["step"], key)
    weights, others = (read_checkpoint(folder / run / "checkpoints" / "last.pt")["model"] for run in ("in_one", name))
    for key in weights:  # but for a few: of a gradient that is nearly nothing AdamW takes the sign, and rounding gives that
        apart = ~torch.isclose(others[key], weights[key], rtol=1e-4, atol=1e-5)
        assert apart.float().mean() < 1e-3, key


def test_only_the_first_process_prints_and_writes(folder):
    assert printed(folder, "in_two", "stderr") == printed(folder, "in_one", "stderr") == ""
    assert printed(folder, "evaluated_by_two", "stdout").count("report: ") == 1
    writers = {path.name.split(".")[-2] for path in (folder / "in_two").glob("events.out.tfevents.*")}
    assert len(writers) == 1, "process numbers"


def test_when_a_process_is_killed_the_other_says_so_and_ends(folder):
    assert statuses(folder, "killed") <= {2, -9}
    error = printed(folder, "killed", "stderr")
    assert error.startswith("error: another process of this run has ended")
    assert (error.count("\n"), "resume=auto" in error) == (1, True)
    checkpoints = folder / "killed" / "checkpoints"
    assert read_checkpoint(checkpoints / "last.pt")["step"] == 2
    assert not list((folder / "killed").rglob("*.part"))


def test_an_error_in_one_process_ends_all_with_one_line(folder):
    assert statuses(folder, "unreadable") == {2}
    assert printed(folder, "unreadable", "stderr") == "error: 17.jpg: not an image\n"


def test_an_error_of_all_processes_is_printed_once(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    arguments = [str(ROOT / "train.py"), "data.root=nowhere", f"out={tmp_path / 'run'}"]
    done = subprocess.run([*command, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode != 0
    assert done.stderr.count("error: data.root=nowhere") == 1
