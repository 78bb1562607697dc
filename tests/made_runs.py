"""Training in a process of its own that starts in no time, to be killed: forked from one that has imported torch."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

import clipseg.run.training
import train
from clipseg.exit_status import guarded
from clipseg.network.config import ModelConfig
from clipseg.run.interruption import stoppable
from clipseg.run.settings import DataSettings, TrainConfig, TrainingSettings

TESTS = Path(__file__).parent


def small_config(root: Path, out: Path, *, data: dict[str, Any] | None = None, **training: Any) -> TrainConfig:
    """A training of milliseconds a step on `phrasecut_root`, which goes on with what `out` holds."""
    settings = {"steps": 6, "batch_size": 4, "validate_every": 100, "checkpoint_every": 100, "log_every": 1} | training
    return TrainConfig(
        experiment="small",
        model=ModelConfig(backbone="mini", pretrained=None, extract_layers=(1, 2), reduce_dim=16, image_size=64),
        data=DataSettings(**({"root": str(root), "train_split": "train", "val_split": "val", "workers": 0} | (data or {}))),
        training=TrainingSettings(**settings),
        device="cpu",
        resume="auto",
        out=str(out),
    )


@contextmanager
def fork_server(monkeypatch: Any) -> Iterator[Callable[..., ForkServerProcess]]:
    """A function that starts `target(*arguments)` in a child of a process that has imported all it needs."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["made_runs"])
    started = []

    def start(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
        process = context.Process(target=target, args=arguments)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


class DieAfter:
    """Kills its process by SIGKILL, a moment after the last of some events."""

    def __init__(self, events: int, seconds: float) -> None:
        self.events, self.seconds = events, seconds

    def __call__(self) -> None:
        self.events -= 1
        if self.events == 0:
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


def run_training(
    config: TrainConfig, at_event: Callable[[], None] | None = None, environment: dict[str, str] | None = None
) -> None:
    """Call the entry point with `config`; what it says goes into `<out>.txt`, its status is the process's.

    Args:
        config: of the training.
        at_event: called before each forward pass of training, and before each file of the run is opened or renamed.
        environment: variables to set.
    """
    os.setsid()
    os.environ.update(environment or {})
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(f"{config.out}.txt", "a", buffering=1)  # noqa: SIM115  (for as long as the process lives)
    if at_event is not None:
        _watch(f"{config.out}/", at_event)
    sys.exit(guarded(lambda: train.train(config)))


def _watch(out: str, at_event: Callable[[], None]) -> None:
    forward = clipseg.run.training.forward

    def watched(*arguments: Any) -> Any:
        at_event()
        return forward(*arguments)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename") and str(arguments[0]).startswith(out):
            at_event()

    clipseg.run.training.forward = watched
    sys.addaudithook(hook)


def never_done(events: Connection) -> None:
    """A step without end, which says each time that it still goes on."""
    with stoppable("go on") as interruption, interruption.deferred():
        while True:
            events.send_bytes(b".")
            time.sleep(0.1)
