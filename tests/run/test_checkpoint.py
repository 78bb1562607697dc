"""A run survives: whenever it is killed, whatever byte of a checkpoint is damaged, it goes on as if nothing had been."""

import json
import random
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from made_runs import DieAfter, fork_server, run_training, small_config

import clipseg
from clipseg.errors import ClipSegError
from clipseg.measure.results import Results
from clipseg.run.checkpoint import find_resume, newest_whole, read_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow

KILLS = 20


def test_twenty_kills_at_random_moments_change_nothing(phrasecut_root, tmp_path, monkeypatch):
    root = phrasecut_root(n=4)
    settings = {"steps": 40, "checkpoint_every": 4, "validate_every": 10, "log_every": 3}
    configs = [small_config(root, tmp_path / name, **settings) for name in ("whole", "killed")]
    for config in configs:
        config.evaluate_splits = ["test"]
    moments = random.Random(20)
    with fork_server(monkeypatch) as start:
        whole = start(run_training, configs[0])
        for _ in range(KILLS):
            process = start(run_training, configs[1], DieAfter(moments.randrange(2, 40), moments.uniform(0, 0.02)))
            process.join()
            assert process.exitcode == -signal.SIGKILL, (tmp_path / "killed.txt").read_text()
        last = start(run_training, configs[1])
        for process in (whole, last):
            process.join()
            assert process.exitcode == 0, (tmp_path / "killed.txt").read_text()

    states = [newest_whole(tmp_path / name) for name in ("whole", "killed")]
    assert_same(states[0]["model"], states[1]["model"])
    assert_same(states[0]["optimizer"], states[1]["optimizer"])
    whole_records, killed_records = (records(tmp_path / name) for name in ("whole", "killed"))
    assert [record["step"] for record in whole_records] == sorted({*range(3, 41, 3), *range(10, 41, 10)})
    assert whole_records == killed_records
    results = [Results.load(tmp_path / name / "eval" / "test") for name in ("whole", "killed")]
    assert (results[0].counts.tp == results[1].counts.tp).all()
    files = [
        {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*") if "tfevents" not in path.name}
        for name in ("whole", "killed")
    ]
    assert files[0] == files[1], "no temporary file is left, and none is missing"


def records(out: Path) -> list[dict[str, Any]]:
    """The figures of each record but for those of speed and memory, which no two runs have in common."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith(("speed", "memory"))} for line in lines]


def assert_same(one: Any, two: Any) -> None:
    """Equal to the last bit, in tensors however deep."""
    assert type(one) is type(two)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for left, right in zip(one, two, strict=True):
            assert_same(left, right)
    else:
        assert one == two


@pytest.fixture
def checkpoint(tmp_path):
    """A small one, and what is in it."""
    train_state = torch.nn.Linear(6, 5)
    optimizer = torch.optim.AdamW(train_state.parameters())
    train_state(torch.randn(3, 6)).sum().backward()
    optimizer.step()
    state = {"model": train_state.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "best": 0.5}
    path = tmp_path / "last.pt"
    save_checkpoint(path, state)
    return path, read_checkpoint(path)


def test_a_flipped_bit_is_found_or_harmless(checkpoint):
    path, whole = checkpoint
    content, places, errors = path.read_bytes(), random.Random(0), []
    for _ in range(300):
        damaged = bytearray(content)
        damaged[places.randrange(len(content))] ^= 1 << places.randrange(8)
        path.write_bytes(damaged)
        try:
            assert_same(read_checkpoint(path), whole)
        except ClipSegError as error:
            errors.append(str(error))
    assert len(errors) > 100, "most bytes mean something; the rest is padding"
    assert all(str(path) in error and "\n" not in error for error in errors)


def test_a_cut_off_checkpoint_is_an_error(checkpoint):
    path, _ = checkpoint
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ClipSegError, match=r"last\.pt: not a checkpoint, or damaged"):
            read_checkpoint(path)


def test_damage_in_the_weights_is_found_when_a_model_is_loaded(tmp_path):
    model = clipseg.load("mini")
    state = {"model": model.decoder.state_dict(), "model_config": {}, "backbone_checksum": ""}
    save_checkpoint(tmp_path / "last.pt", state)
    content = bytearray((tmp_path / "last.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(ClipSegError, match="checksum"):
        clipseg.load(tmp_path / "last.pt")


@pytest.mark.filterwarnings("ignore:.*looking for an older one")
def test_a_damaged_newest_checkpoint_gives_way_to_an_older_one(tmp_path):
    folder = tmp_path / "checkpoints"
    for name, step in {"last": 6, "step_0000004": 4, "step_0000002": 2, "best": 1}.items():
        save_checkpoint(folder / f"{name}.pt", {"step": step, "weights": torch.zeros(1000)})

    def flip(path):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    damages = [lambda path: path.write_bytes(path.read_bytes()[:1000]), flip, lambda path: path.write_bytes(b"")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_resume("auto", tmp_path)["step"] == 6
    for harm, name, older in zip(damages, ("last", "step_0000004", "step_0000002"), (4, 2, 1), strict=True):
        harm(folder / f"{name}.pt")
        with pytest.warns(UserWarning, match=rf"{name}\.pt: .*damaged.*; looking for an older one"):
            assert find_resume("auto", tmp_path)["step"] == older
    (folder / "best.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="older one"), pytest.raises(ClipSegError, match="every checkpoint is damaged"):
        find_resume("auto", tmp_path)
