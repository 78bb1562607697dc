"""The command line of the entry points: what it takes, and the one line it says of what it does not take."""

import os
from pathlib import Path

import pytest

import clipseg
import evaluate
import train
from clipseg.entry import read_config
from clipseg.errors import ClipSegError


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("training.steps=abc", "training.steps=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        ("training.compile=7up", "training.compile=7up: Value '7up' is not a valid bool (type str)"),
        ("evaluate_splits=test", "evaluate_splits=test: Invalid value assigned: str is not a ListConfig, list or tuple."),
        ("out=äö", "out=äö: cannot be read as it is; quote it: 'out=\"äö\"'"),
        ("out=run(1)", "out=run(1): cannot be read as it is; quote it: 'out=\"run(1)\"'"),
        ("out=a=b", "out=a=b: cannot be read as it is; quote it: 'out=\"a=b\"'"),
        ("out=~/x", "out=~/x: cannot be read as it is; quote it: 'out=\"/home/x\"'"),
        ("steps", "steps: no setting; expected KEY=VALUE"),
        ("out=", "out= is empty; expected KEY=VALUE"),
        ("data.root=''", "data.root= is empty; expected KEY=VALUE"),
        ("training.steps=", "training.steps= is empty; expected KEY=VALUE"),
        ("experiment=", "experiment= is empty; expected KEY=VALUE"),
        ("=x", "=x is empty; expected KEY=VALUE"),
        ("+out=x", "+out=x: the key is there already; write out=x"),
        ("~out", "~out: no setting can be taken out; give it another value"),
        ("~training", "~training.amp: no setting can be taken out; give it another value"),
        ("out=${nothing}", "config: Interpolation key 'nothing' not found full_key: out object_type=TrainConfig"),
        ("sweep=miniature", "sweep=miniature is many runs; add -m to the command"),
    ],
)
def test_an_argument_that_cannot_be_taken_is_named_with_what_to_write(call, monkeypatch, argument, line):
    monkeypatch.setenv("HOME", "/home")
    assert call(train, argument) == (2, "", f"error: {line}\n")
    assert not list(Path().iterdir())


def test_quoted_as_told_it_is_taken(call, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    status, shown, _ = call(train, 'out="run(1)=a b"', "--cfg", "job")
    assert status == 0
    assert "out: run(1)=a b\n" in shown
    status, _, error = call(train, 'out="~/file/x"', 'data.root="~/nowhere"')
    assert (status, error.count("\n")) == (2, 1)
    assert f"{tmp_path}/nowhere: no such folder" in error
    Path("taken").touch()
    assert f"{tmp_path}/taken: " in call(train, 'out="~/taken"')[2], "a file of the home"
    assert not Path("~").exists()
    assert not Path("~").exists()


def test_flags_may_stand_among_the_overrides(call):
    status, shown, _ = call(train, "seed=7", "--cfg", "job", "out=here")
    assert status == 0
    assert "seed: 7\n" in shown
    status, _, error = call(train, "data.root=nowhere", "seed=0,1", "-m", "out=here${seed}")
    assert status == 2
    assert error.count("data.root=nowhere: no such folder") == 2


@pytest.mark.parametrize("entry", [train, evaluate])
def test_the_version_is_ours(call, entry):
    assert call(entry, "--version") == (0, f"{clipseg.__version__}\n", "")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("data: {root: [1, 2]}", "data.root is [1, 2], no str"),
        ("fold: one", "fold is one, no int"),
        ("- 1", "no config of train.py"),
        ("a: [", "no config of train.py"),
        ("fold: ${nothing}", "no config of train.py"),
    ],
)
def test_a_damaged_config_of_a_run_is_named(tmp_path, text, named):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(ClipSegError, match="restore it") as raised:
        evaluate.training_run(str(tmp_path))
    assert str(raised.value).startswith(f"{config}: ")
    assert named in str(raised.value)


def test_a_config_may_have_a_byte_order_mark(tmp_path):
    (tmp_path / "config.yaml").write_text("\ufeffseed: 3\n", encoding="utf-8")
    assert read_config(tmp_path / "config.yaml") == {"seed": 3}
    os.remove(tmp_path / "config.yaml")
    with pytest.raises(ClipSegError, match="no such file"):
        read_config(tmp_path / "config.yaml")
