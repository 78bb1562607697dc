"""SIGTERM, SIGHUP and SIGINT: the step is finished and saved, the status says resumable, a second SIGINT ends at once."""

import json
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from made_runs import fork_server, never_done, run_training, small_config

import clipseg.run.evaluation
import clipseg.run.loading
import clipseg.run.training
import train
from clipseg.errors import Stopped
from clipseg.exit_status import RESUMABLE
from clipseg.run.checkpoint import newest_whole
from clipseg.run.interruption import stoppable

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_outside_a_deferring_block_a_signal_stops_at_once(name):
    done = []

    def run():
        with stoppable("go on"):
            signal.raise_signal(signal.Signals[name])
            done.append("never")

    with pytest.raises(Stopped, match=f"^stopped by {name}; go on$"):
        run()
    assert not done


def test_what_nohup_lets_be_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable("go on") as interruption:
            signal.raise_signal(signal.SIGHUP)
        assert interruption.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_within_one_it_is_noted_and_stops_where_that_is_allowed():
    done = []

    def run():
        with stoppable("go on") as interruption, interruption.deferred():
            with interruption.at_once():
                done.append("validated")
            signal.raise_signal(signal.SIGINT)
            done.append(interruption.received)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL, "a second one ends the process"
            with interruption.at_once():
                done.append("never")

    with pytest.raises(Stopped, match="SIGINT"):
        run()
    assert done == ["validated", "SIGINT"]


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Stopped), stoppable("go on"):
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_sigterm_that_somebody_lets_pass_stops_nothing():
    passed = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: passed.append(number))
    try:
        with stoppable("go on") as interruption:
            signal.raise_signal(signal.SIGTERM)
        assert (passed, interruption.received) == ([signal.SIGTERM], None)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_somebody_handles_reaches_him_when_all_is_saved():
    """As submitit does, which puts a job back into SLURM's queue on SIGUSR2."""
    order = []

    def run():
        with stoppable("go on") as interruption, interruption.deferred():
            signal.raise_signal(signal.SIGUSR2)
            order.append("saved")
            raise interruption.stopped()

    before = signal.signal(signal.SIGUSR2, lambda number, frame: order.append("requeued"))
    try:
        with pytest.raises(Stopped, match="SIGUSR2"):
            run()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert order == ["saved", "requeued"]


def stop_in(monkeypatch, module, name, *, call: int, number: int):
    """Send ourselves a signal at the given call of a function -> a list that grows with each call."""
    function, calls = getattr(module, name), []

    def stopping(*arguments, **options):
        calls.append(None)
        if len(calls) == call:
            signal.raise_signal(number)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, stopping)
    return calls


def small_run(call, root, *overrides):
    size = ["model.extract_layers=[1,2]", "model.reduce_dim=16", "model.image_size=64", "evaluate_splits=[test]"]
    steps = ["training.steps=4", "training.batch_size=4", "training.phrases_per_image=1", "training.validate_every=2"]
    data = [f"data.root={root}", "data.val_split=val", "data.workers=0"]
    return call(train, *overrides, "experiment=mini_random", *size, *steps, *data, "out=run${seed}", "resume=auto")


def test_in_training_the_step_is_finished_and_saved(call, phrasecut_root, monkeypatch):
    root = phrasecut_root(n=2)
    with monkeypatch.context() as patch:
        stop_in(patch, clipseg.run.training, "forward", call=3, number=signal.SIGTERM)
        status, _, said = small_run(call, root, "training.log_every=1")
    assert (status, said) == (RESUMABLE, "stopped by SIGTERM after step 3 of 4; go on with resume=auto out=run0\n")
    assert RESUMABLE == os.EX_TEMPFAIL
    assert newest_whole(Path("run0"))["step"] == 3
    assert small_run(call, root, "training.log_every=1")[0] == 0
    assert newest_whole(Path("run0"))["step"] == 4
    records = [json.loads(line) for line in Path("run0/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert all("train/loss" in record for record in records), "that of step 3 came with the checkpoint"


def test_until_the_first_batch_is_there_it_ends_at_once(call, phrasecut_root, monkeypatch):
    stop_in(monkeypatch, clipseg.run.loading, "collate", call=1, number=signal.SIGTERM)
    status, _, said = small_run(call, phrasecut_root(n=2))
    assert (status, said) == (RESUMABLE, "stopped by SIGTERM; go on with resume=auto out=run0\n")
    assert newest_whole(Path("run0")) is None


def test_in_validation_and_evaluation_it_ends_quickly_and_nothing_is_lost(call, phrasecut_root, monkeypatch):
    root = phrasecut_root(n=4)
    # Four images are validated after step 2 and after step 4, and then four evaluated.
    for images, step in ((2, 2), (10, 4)):
        with monkeypatch.context() as patch:
            measured = stop_in(patch, clipseg.run.evaluation, "count", call=images, number=signal.SIGINT)
            status, _, said = small_run(call, root)
        assert (status, said) == (RESUMABLE, "stopped by SIGINT; go on with resume=auto out=run0\n")
        assert len(measured) == images, "the rest is not measured"
        assert newest_whole(Path("run0"))["step"] == step
        assert not Path("run0/eval").exists()
    assert small_run(call, root)[0] == 0
    assert Path("run0/eval/test/report.html").is_file()


def test_a_stop_ends_the_sweep_and_not_only_its_job(call, phrasecut_root, monkeypatch):
    root = phrasecut_root(n=2)
    with monkeypatch.context() as patch:
        stop_in(patch, clipseg.run.training, "create_model", call=1, number=signal.SIGTERM)
        status, _, said = small_run(call, root, "-m", "seed=0,1")
    assert (status, said) == (RESUMABLE, "stopped by SIGTERM; go on with resume=auto out=run0\n")
    assert not Path("run1").exists()


@pytest.fixture
def start(monkeypatch):
    with fork_server(monkeypatch) as function:
        yield function


def begin(start, config, environment=None):
    """Start a training, and come back when it has made some steps."""
    process = start(run_training, config, None, environment)
    records = Path(config.out, "metrics.jsonl")
    while not records.exists() or len(records.read_bytes().splitlines()) < 3:
        assert process.is_alive(), Path(f"{config.out}.txt").read_text()
        time.sleep(0.02)
    return process


def test_a_signal_to_the_whole_group_leaves_the_workers_to_finish_the_step(start, phrasecut_root, tmp_path):
    config = small_config(phrasecut_root(n=2), tmp_path / "run", data={"workers": 2}, steps=100_000, checkpoint_every=100_000)
    process = begin(start, config)
    os.killpg(process.pid, signal.SIGINT)
    process.join()
    said = (tmp_path / "run.txt").read_text()
    assert process.exitcode == RESUMABLE, said
    step = newest_whole(tmp_path / "run")["step"]
    assert said.splitlines()[-1] == f"stopped by SIGINT after step {step} of 100000; go on with resume=auto out={config.out}"
    assert all(line.startswith("step ") for line in said.splitlines()[:-1])


def test_a_second_sigint_ends_at_once(start):
    events, child_end = multiprocessing.Pipe(duplex=False)
    process = start(never_done, child_end)
    while process.is_alive():
        if events.poll():
            os.read(events.fileno(), 100)
            os.kill(process.pid, signal.SIGINT)
        process.join(timeout=0.1)
    assert process.exitcode == -signal.SIGINT, "which a shell calls 130"


def test_all_processes_stop_after_the_same_step(start, phrasecut_root, tmp_path):
    root = phrasecut_root(n=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    configs = [small_config(root, tmp_path / name, steps=100_000, checkpoint_every=100_000) for name in ("run", "other")]
    second = start(run_training, configs[1], None, address | {"RANK": "1"})
    first = begin(start, configs[0], address | {"RANK": "0"})
    os.kill(second.pid, signal.SIGTERM)
    for process in (first, second):
        process.join(timeout=120)
        assert process.exitcode == RESUMABLE, (tmp_path / "run.txt").read_text() + (tmp_path / "other.txt").read_text()
    said = (tmp_path / "run.txt").read_text().splitlines()[-1]
    step = newest_whole(tmp_path / "run")["step"]
    assert said == f"stopped by another process after step {step} of 100000; go on with resume=auto out={configs[0].out}"
    assert "stopped" not in (tmp_path / "other.txt").read_text(), "one of them says it"
