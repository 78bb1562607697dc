"""Workers that die or hang end a run by one line, within the time that is set; a signal to all of a group does not."""

import contextlib
import gc
import os
import resource
import signal
import time
from multiprocessing import active_children
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
import torch

from clipseg.data.sample import Sample, Task
from clipseg.errors import ClipSegError, Stopped
from clipseg.run.distributed import Processes
from clipseg.run.interruption import stoppable
from clipseg.run.loading import evaluation_batches
from clipseg.run.settings import LoaderSettings
from clipseg.run.workers import naming_worker_failures


class Troubled:
    """Items of which item 3 does `harm` to the process that reads it."""

    image_ids = np.arange(6)

    def __init__(self, harm=None):
        self.harm = harm

    def __len__(self):
        return len(self.image_ids)

    def __getitem__(self, index):
        if self.harm and index[1] == 3:
            self.harm()
        task = Task(key=f"{index[1]}", phrase=f"{os.getpid()}", mask=torch.zeros(4, 4), group="", seed=0)
        return Sample(image_key=f"{index[1]}", image=torch.zeros(3, 4, 4), tasks=[task])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(1000)


@naming_worker_failures()
def read(data, **loader):
    left_out = []
    options = {"processes": Processes(), "left_out": left_out, "device": torch.device("cpu")}
    return list(evaluation_batches(data, range(len(data)), loader=LoaderSettings(**loader), **options))


@pytest.mark.parametrize("room", [3, 12, 14, 16])
def test_too_few_open_files_are_one_line(capfd, room):
    """At each limit something else fails first: a worker's start, its hand, or the main process's."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, limits[1]))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for handle in taken[:room]:
        os.close(handle)
    try:
        with pytest.raises(ClipSegError, match=r"Too many open files.*ulimit -n.*data\.workers"):
            read(Troubled(), workers=2)
    finally:
        for handle in taken[room:]:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert capfd.readouterr().err == ""
    assert not active_children()


def test_a_signal_is_answered_while_workers_start(monkeypatch, capfd):
    started = []

    def start(worker, *, begin=BaseProcess.start):
        begin(worker)
        started.append(worker.pid)
        if len(started) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(BaseProcess, "start", start)
    with pytest.raises(Stopped, match="SIGTERM"), stoppable("go on"):
        read(Troubled(), workers=6)
    assert len(started) == 2
    assert all(map(is_gone, started))
    gc.collect()
    assert capfd.readouterr().err == ""


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_that_is_killed_is_one_line():
    with pytest.raises(ClipSegError, match=r"reading data failed: DataLoader worker .*(Killed|died|exited).*; out of memory\?"):
        read(Troubled(die), workers=1)


def test_a_worker_that_hangs_is_given_up_and_ended():
    before = time.monotonic()
    with pytest.raises(ClipSegError, match=r"timed out after 1 seconds; .* data.worker_timeout"):
        read(Troubled(hang), workers=2, worker_timeout=1)
    assert time.monotonic() - before < 60, "and nobody waits until it wakes up"


def test_workers_outlive_a_signal_to_the_group_and_end_with_their_reader():
    options = {"processes": Processes(), "left_out": [], "device": torch.device("cpu")}
    batches = evaluation_batches(Troubled(), range(6), loader=LoaderSettings(workers=1), **options)
    worker = int(next(batches).phrases[0])
    assert worker != os.getpid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker, number)
    assert [batch.keys for batch in batches] == [[f"{item}"] for item in range(1, 6)]

    batches = evaluation_batches(Troubled(), range(6), loader=LoaderSettings(workers=1), **options)
    worker = int(next(batches).phrases[0])
    batches.close()
    assert is_gone(worker)
