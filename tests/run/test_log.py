"""The log of a run: each step once, whatever was cut off, and one line when the disk is full."""

import json
import resource
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from clipseg import exit_status
from clipseg.errors import ClipSegError
from clipseg.run.distributed import Processes
from clipseg.run.log import RunLog, recorded_steps


def begin(folder, *, start=0, state=None):
    return RunLog(folder, steps=10, start=start, every=1, processes=Processes(), state=state)


def steps(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_behind_the_checkpoint_are_dropped_and_its_own_is_written_again(tmp_path):
    with begin(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log.noted = {"train/loss": step / 10, "val/miou": 0.5}
            state = log.state_dict()
            log.end_step(step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[5]\n{"step": "six"}\n{"step": 5, "train/lo')
    assert recorded_steps(tmp_path) == 4
    with begin(tmp_path, start=3, state=state | {"noted": {"train/loss": 0.3}}) as log:
        assert steps(tmp_path) == [1, 2]
        assert log.noted.items() >= {"train/loss": 0.3, "val/miou": 0.5}.items()
        log.end_step(3)
    assert steps(tmp_path) == [1, 2, 3]
    assert recorded_steps(tmp_path / "nowhere") == 0


def test_what_is_counted_over_the_run_goes_on(tmp_path):
    with begin(tmp_path) as log:
        log.overlap += 7
        log.left_out += ["1.jpg: truncated", "2.jpg: truncated"]
        state = log.state_dict()
    with begin(tmp_path, start=1, state=state) as log:
        log.left_out.append("1.jpg: truncated")
        goes_on = log.state_dict()
        assert goes_on.pop("seconds") > state["seconds"] > 0
        assert goes_on == {"noted": {}, "overlap": [7, 7], "left_out": 3}


@contextmanager
def files_of_at_most(size):
    """The nearest to a full disk that a test can have: writing more to a file is an error of the operating system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_tensorboards_thread_tells_of_a_full_disk_before_the_next_checkpoint(tmp_path, monkeypatch, capsys):
    picture = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    monkeypatch.setattr(threading, "excepthook", exit_status._quiet_disk_errors)
    saved = []

    def train():
        with files_of_at_most(20_000), begin(tmp_path) as log:
            log.pictures(1, [("a dog", picture)])
            log.flush()
            saved.append("a checkpoint")

    with pytest.raises(ClipSegError, match=rf"{tmp_path}: cannot be written \(File too large\); free the space"):
        train()
    assert not saved
    assert capsys.readouterr().err == "", "no traceback of the thread"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_record_that_finds_no_space_is_one_line(tmp_path):
    with begin(tmp_path) as log:
        log.path = Path("/dev/full")
        log.noted = {"train/loss": 0.5}
        with pytest.raises(ClipSegError, match=r"/dev/full: cannot be written \(No space left"):
            log.end_step(1)
