"""The two entry points, called as a user calls them: what they leave on disk, and the one line they say of bad input."""

import contextlib
import json
import os
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from made_data import SMALL_TRAINING
from PIL import Image

import clipseg.run.jobs
import clipseg.run.training
import evaluate
import train
from clipseg.errors import ClipSegError
from clipseg.exit_status import guarded
from clipseg.files import locked
from clipseg.measure.results import Results
from clipseg.run.checkpoint import newest_whole

pytestmark = pytest.mark.slow


LEVEL = ["training.lr=1e-3", "training.final_lr=1e-3"]  # a rate that does not fall, so that a run may get more steps


def train_here(call, root, *overrides):
    return call(train, *SMALL_TRAINING, f"data.root={root}", "data.val_split=val", "out=run", *LEVEL, *overrides)


def test_train_then_evaluate(call, phrasecut_root):
    root = phrasecut_root(n=2)
    status, out, err = train_here(call, root, "evaluate_splits=[test]", "seed=5")
    assert (status, err) == (0, "")
    assert "IoU_FG" in out
    run = Path("run")
    for name in ("config.yaml", "provenance.json", "metrics.jsonl", "checkpoints/last.pt", "checkpoints/best.pt"):
        assert (run / name).is_file(), name
    assert list(run.glob("events.out.tfevents.*"))
    origin = json.loads((run / "provenance.json").read_text())
    assert origin["versions"]["torch"]
    assert origin["machine"].endswith(" cores")

    status, out, err = call(
        evaluate, "checkpoint=run", "benchmark=phrasecut", "split=test", "out=again", "save_predictions=masks", "protocol=paper"
    )
    assert (status, err) == (0, "")
    in_run, again = (json.loads(Path(name, "metrics.json").read_text()) for name in ("run/eval/test", "again"))
    in_run.pop("seconds"), again.pop("seconds")
    assert in_run == again, "evaluation after training and evaluate.py agree"
    assert "test · protocol paper</title>" in Path("again/report.html").read_text()
    assert "protocol: paper; report: again" in out
    results = Results.load("again")
    for measured in (results, Results.load("run/eval/test")):
        assert (measured.provenance["training_seed"], measured.provenance["training_commit"]) == (5, origin["commit"])
        assert (measured.provenance["split"], measured.provenance["training_protocol"]) == ("test", "released")
    assert (results.provenance["protocol"], origin["protocol"]) == ("paper", "released")
    assert (results.provenance["seed"], results.provenance["config"]["data"]["root"]) == (0, str(root))
    assert results.intensity is None
    in_training = Results.load("run/eval/test")
    assert in_training.intensity is not None
    assert len(in_training.intensity) == len(results)
    assert set(results.subsets) == {"i_single", "p_name", "s_mid"}
    assert len(results.provenance["missing_subsets"]) == 2
    assert list(Path("run/eval/test").glob("events.out.tfevents.*"))
    assert len(list(Path("masks").iterdir())) == len(results)
    for key, height, width in zip(results.key, results.height, results.width, strict=True):
        picture = np.asarray(Image.open(Path("masks", f"{key.split('/')[1]}.png")))
        assert picture.shape == (height, width)
        assert set(np.unique(picture).tolist()) <= {0, 255}


def test_resume_auto_goes_on_and_a_full_folder_is_not_overwritten(call, phrasecut_root):
    root = phrasecut_root(n=2)
    assert train_here(call, root)[0] == 0
    status, _, err = train_here(call, root)
    assert status == 2
    assert "resume=auto" in err
    assert train_here(call, root, "resume=auto", "training.steps=3")[0] == 0
    records = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]
    spent = [record["speed/seconds"] for record in records]
    assert 0 < spent[0] < spent[1] < spent[2]


def test_visual_prompts_are_evaluated_too_and_a_finished_run_is_left_alone(call, phrasecut_root):
    root = phrasecut_root(n=4)
    asked = ["evaluate_splits=[test]", "evaluate_visual=[test]", "seed=3"]
    assert train_here(call, root, *asked)[0] == 0
    assert Results.load("run/eval/test_visual").provenance["benchmark"] == "phrasecut_visual"
    status, _, _ = call(
        evaluate,
        "checkpoint=run",
        "benchmark=phrasecut_visual",
        "prompt.visual_prompt=crop_blur_intensity10",
        "seed=3",
        "out=again",
    )
    assert status == 0
    assert np.array_equal(Results.load("again").counts.tp, Results.load("run/eval/test_visual").counts.tp)

    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    status, out, err = train_here(call, root, *asked, "resume=auto")
    assert (status, out, err) == (0, "run: finished already\n", "")
    assert before == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    Path("run/eval/test_visual/metrics.json").unlink()
    assert train_here(call, root, *asked, "resume=auto")[0] == 0
    assert Path("run/eval/test_visual/metrics.json").is_file()


def cut_json(root):
    path = root / "refer_train.json"
    path.write_text(path.read_text()[:200])
    return path.name


def no_polygons(root):
    tasks = json.loads((root / "refer_train.json").read_text())
    tasks[0]["Polygons"] = []
    (root / "refer_train.json").write_text(json.dumps(tasks))
    return tasks[0]["task_id"]


def missing_images(root):
    (root / "images" / "1.jpg").unlink()
    return "data.allow_missing=true"


def truncated_image(root):
    path = root / "images" / "1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    (root / "images" / "2.jpg").write_bytes(b"")
    return ".jpg"


@pytest.mark.parametrize("harm", [cut_json, no_polygons, missing_images, truncated_image])
def test_bad_data_is_one_line(call, phrasecut_root, harm):
    root = phrasecut_root(n=2)
    named = harm(root)
    status, _, err = train_here(call, root, "training.batch_size=8")
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert named in err
    assert not list(Path().rglob("*.part"))


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["data.root=nowhere"], "nowhere"),
        (["data.train_split=tets"], "tets"),
        (["experiment=nothing"], "nothing"),
        (["training.setps=1"], "setps"),
        (["training.steps=many"], "training.steps"),
        (["model.image_size=65"], "65"),
        (["model.extract_layers=[3,99]"], "99"),
        (["model.backbone=ViT-Z"], "ViT-Z"),
        (["resume=nothing.pt"], "nothing.pt"),
        (["device=tpu9"], "tpu9"),
    ],
)
def test_a_bad_argument_is_one_line(call, phrasecut_root, overrides, named):
    status, _, err = train_here(call, phrasecut_root(n=1), *overrides)
    assert status == 2
    assert named in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not Path("run/checkpoints").exists()


def test_evaluate_says_what_is_wrong_with_a_checkpoint(call, phrasecut_root):
    root = phrasecut_root(n=1)
    assert train_here(call, root)[0] == 0
    last = Path("run/checkpoints/last.pt")
    last.write_bytes(last.read_bytes()[:2000])
    Path("foreign.pt").write_bytes(b"PK not ours")
    for checkpoint in ("run", str(last), "foreign.pt", "nothing-here"):
        status, _, err = call(evaluate, f"checkpoint={checkpoint}", "split=test", f"data.root={root}", "out=results")
        assert (status, err.count("\n")) == (2, 1), err
        assert not Path("results").exists()


@pytest.mark.parametrize("content", ["a: [", "- 1", "5", "data: 5", "fold: ${nothing}", "\x00", "\udcff"])
def test_a_run_whose_config_is_damaged_is_one_line(content, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_bytes(content.encode(errors="surrogateescape"))
    with contextlib.suppress(ClipSegError):
        assert evaluate.training_run(str(tmp_path)) == evaluate.TrainingRun()


def test_arguments_that_hydra_refuses_with_errors_of_python_are_one_line(call):
    status, _, err = call(train, "experiment=null")
    assert (status, err.count("\n")) == (2, 1)
    assert "config: " in err


@pytest.mark.parametrize("printed", ["a line\n", "a line\n" * 100_000])
def test_a_reader_that_has_seen_enough_ends_it_quietly(printed, monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert guarded(lambda: print(printed)) == 141
        output.flush()
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_of_another_kind_is_no_end(capsys):
    def write_to_a_worker() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        guarded(write_to_a_worker)


def test_a_name_of_weights_has_no_run_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("experiment: another\n")
    assert evaluate.training_run("mini") == evaluate.TrainingRun()


def no_space(handle):
    raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("limit", [None, 60_000])
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(call, phrasecut_root, monkeypatch, limit):
    root = phrasecut_root(n=1)
    assert train_here(call, root)[0] == 0
    before = Path("run/checkpoints/last.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        else:
            monkeypatch.setattr(os, "fsync", no_space)
        status, _, err = train_here(call, root, "resume=auto", "training.steps=4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (status, err.count("\n")) == (2, 1), err
    assert ("File too large" if limit else "No space left") in err
    assert Path("run/checkpoints/last.pt").read_bytes() == before
    assert not list(Path("run").rglob("*.part"))


def test_a_place_that_cannot_be_written_to_is_one_line(call, phrasecut_root):
    root = phrasecut_root(n=1)
    Path("file").write_text("")
    status, _, err = train_here(call, root, "out=file/run")
    assert (status, err.count("\n")) == (2, 1)
    assert "file/run" in err
    assert "cannot be written (Not a directory)" in err


def in_step(monkeypatch, step, harm):
    """Do `harm` in the midst of training."""
    forward, steps = clipseg.run.training.forward, []

    def harmed(*arguments):
        steps.append(None)
        if len(steps) == step:
            harm()
        return forward(*arguments)

    monkeypatch.setattr(clipseg.run.training, "forward", harmed)


@pytest.mark.parametrize("unreadable", ["stop", "leave_out"])
def test_a_data_root_that_vanishes_in_mid_run_is_one_line(call, phrasecut_root, monkeypatch, unreadable):
    root = phrasecut_root(n=20, splits=("train", "val"))
    in_step(monkeypatch, 2, lambda: shutil.rmtree(root))
    keys = ["training.steps=4", "training.checkpoint_every=1", f"data.unreadable={unreadable}"]
    status, _, err = train_here(call, root, *keys)
    errors = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert (status, len(errors)) == (2, 1), err
    assert ".jpg: no such image" in errors[0]
    assert newest_whole(Path("run"))["step"] == 2


def test_a_photo_that_becomes_unreadable_is_left_out_by_key_and_counted(call, phrasecut_root, monkeypatch):
    root = phrasecut_root(n=3, splits=("train", "val", "test"))

    def truncate():
        for name in ("2.jpg", "8.jpg"):  # one of training, one of the test
            path = root / "images" / name
            path.write_bytes(path.read_bytes()[:300])

    keys = ["training.steps=6", "evaluate_splits=[test]", "training.validate_every=6"]
    with monkeypatch.context() as patch:
        in_step(patch, 2, truncate)
        status, out, err = train_here(call, root, *keys, "data.unreadable=leave_out")
    assert status == 0, err
    assert all(line.startswith("warning: ") and line.endswith("; left out") for line in err.splitlines())
    assert {Path(line.split(":")[1].strip()).name for line in err.splitlines()} == {"2.jpg", "8.jpg"}
    counted = [json.loads(line).get("data/left_out", 0) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert counted[:2] == [0, 0]
    assert counted[-1] > 0
    metrics = json.loads(Path("run/eval/test/metrics.json").read_text())
    assert metrics["images_left_out"] == 1
    assert "1 images could not be read and were left out" in out
    assert "8.jpg" in json.loads(Path("run/eval/test/provenance.json").read_text())["left_out"][0]
    assert "8.jpg" in Path("run/eval/test/report.html").read_text()

    evaluation = ["checkpoint=run", "split=test", "out=again"]
    status, _, err = call(evaluate, *evaluation)
    assert (status, err.count("\n")) == (2, 1)
    assert "8.jpg: " in err
    status, _, err = call(evaluate, *evaluation, "data.unreadable=leave_out")
    assert status == 0
    assert "8.jpg" in err
    assert json.loads(Path("again/metrics.json").read_text())["images_left_out"] == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["+trainig.steps=7"], "trainig.steps: no such key; did you mean training.steps?"),
        (["++data.negative=0.5"], "data.negative: no such key; did you mean data.negatives?"),
        (["trainig.steps=7"], "trainig.steps: no such key; did you mean training.steps?"),
    ],
)
def test_a_typo_is_refused_however_it_is_spelt(call, tmp_path, arguments, named):
    status, _, error = call(train, *SMALL_TRAINING, *arguments, f"out={tmp_path / 'run'}")
    assert (status, error.count("\n")) == (2, 1)
    assert named in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("training.lr=0.1", "training.lr=0.001, not 0.1"),
        ("data.negatives=0.5", "data.negatives=0.0, not 0.5"),
        ("model.head=refined", "model.head=plain, not refined"),
        ("seed=3", "seed=0, not 3"),
        ("training.steps=4", "training.steps=2, not 4, and its learning rate falls"),
    ],
)
def test_a_run_goes_on_with_what_it_was_trained_with(finished_run, call, change, named):
    folder, arguments = finished_run
    before = (folder / "provenance.json").read_bytes()
    for resume in ("auto", folder / "checkpoints" / "last.pt"):
        status, _, error = call(train, *arguments, change, f"out={folder}", f"resume={resume}")
        assert (status, error.count("\n")) == (2, 1), error
        assert named in error
    assert (folder / "provenance.json").read_bytes() == before
    status, out, error = call(train, *arguments, "training.log_every=2", f"out={folder}", "resume=auto")
    assert (status, error) == (0, "")
    assert "finished already" in out


@pytest.fixture
def finished_run(phrasecut_root, call, tmp_path):
    head = ["model.head=plain"]
    arguments = [*SMALL_TRAINING, *head, f"data.root={phrasecut_root(4)}", "data.val_split=val", "data.train_split=train"]
    status, _, error = call(train, *arguments, f"out={tmp_path / 'run'}")
    assert status == 0, error
    return tmp_path / "run", arguments


def test_an_evaluation_does_not_write_over_anything_else(finished_run, call, tmp_path):
    run, arguments = finished_run
    root = next(argument for argument in arguments if argument.startswith("data.root="))
    before = (run / "provenance.json").read_bytes()
    common = [f"checkpoint={run}", root, "data.workers=0"]

    def refused(named, *extra):
        status, _, error = call(evaluate, *common, *extra)
        assert (status, error.count("\n")) == (2, 1), error
        assert named in error

    refused("holds a training run; choose another out=, or add overwrite=true", f"out={run}")
    assert (run / "provenance.json").read_bytes() == before
    out = f"out={tmp_path / 'e'}"
    assert call(evaluate, *common, "split=val", out)[0] == 0
    refused("holds results of split=val, not test", "split=test", out)
    assert call(evaluate, *common, "split=val", out)[0] == 0
    assert call(evaluate, *common, "split=test", out, "overwrite=true")[0] == 0


def test_a_folder_of_results_is_tried_before_hours_of_work(finished_run, call, tmp_path, monkeypatch):
    run, arguments = finished_run
    root = next(argument for argument in arguments if argument.startswith("data.root="))
    monkeypatch.setattr(clipseg.run.jobs, "measure", lambda *_, **__: pytest.fail("measured in vain"))
    (tmp_path / "loop").symlink_to("loop")
    for folder in ("loop", "loop/x", "n" * 300, "/proc/x", run / "config.yaml"):
        status, _, error = call(evaluate, f"checkpoint={run}", root, f"out={folder}")
        assert (status, error.count("\n")) == (2, 1), error
        assert error.endswith("; choose another path\n")
    with locked(tmp_path / "out"):
        status, _, error = call(evaluate, f"checkpoint={run}", root, f"out={tmp_path / 'out'}")
    assert status == 2
    assert "another run writes there now" in error


@pytest.mark.parametrize("damage", ["", "[1]", None])
def test_a_run_whose_config_is_damaged_does_not_go_on_with_another(finished_run, call, damage):
    run, arguments = finished_run
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to("config.yaml") if damage is None else (run / "config.yaml").write_text(damage)
    status, _, error = call(train, *arguments, f"out={run}", "resume=auto", "training.steps=3")
    assert (status, error.count("\n")) == (2, 1)
    assert f"{run / 'config.yaml'}: " in error
    (run / "config.yaml").unlink()
    status, _, error = call(train, *arguments, f"out={run}", "resume=auto", "training.steps=3")
    assert status == 0
    assert error.startswith(f"warning: {run / 'config.yaml'}: not there")


def test_a_run_without_its_checkpoints_is_not_trained_over(finished_run, call):
    run, arguments = finished_run
    shutil.rmtree(run / "checkpoints")
    status, _, error = call(train, *arguments, f"out={run}")
    assert status == 2
    assert "already holds a run" in error


def test_a_folder_has_one_run_at_a_time(finished_run, call):
    run, arguments = finished_run
    with locked(run):
        status, _, error = call(train, *arguments, f"out={run}", "resume=auto")
    assert (status, error.count("\n")) == (2, 1)
    assert "another run writes there now" in error
    assert call(train, *arguments, f"out={run}", "resume=auto")[0] == 0


def test_too_many_workers_are_refused(call):
    status, _, error = call(train, "data.workers=9999", "out=run")
    assert status == 2
    assert "data.workers=9999 must be at most" in error


def test_an_impossible_folder_is_one_line(call, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for folder in (tmp_path / "loop" / "x", tmp_path / ("n" * 300), "/proc/nothing/x"):
        status, _, error = call(train, *SMALL_TRAINING, f"data.root={tmp_path}", f"out={folder}")
        assert (status, error.count("\n")) == (2, 1), error
        assert "choose another path" in error
