"""Runs the entry points in several processes, one job after the other: `python two_processes.py JOBS.json`, in an empty folder.

The processes are started by torchrun's own launcher, forked from this one, so that torch is imported once for all jobs. Job
`name` leaves the output of its processes under `logs/name`, and all jobs `status.json`: the exit statuses of those that failed.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import evaluate  # noqa: E402
import train  # noqa: E402
from clipseg.data.phrasecut import PhraseCut  # noqa: E402
from clipseg.entry import launch  # noqa: E402
from clipseg.errors import ClipSegError  # noqa: E402
from clipseg.network.cpu_kernels import Dropout  # noqa: E402
from clipseg.run.log import RunLog  # noqa: E402
from clipseg.run.settings import TrainConfig, evaluate_schema  # noqa: E402

ENTRIES = {"train": (train.train, TrainConfig), "evaluate": (evaluate.evaluate, evaluate_schema())}


def main() -> None:
    statuses = {}
    for job in json.loads(Path(sys.argv[1]).read_text()):
        if "resumes" in job:
            step_2_of(Path(job["resumes"]), Path(job["name"]))
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=job["processes"],
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            start_method="fork",
            max_restarts=0,
            # Time enough for every process to end by itself before the launcher ends it.
            monitor_interval=2 if "harm" in job else 0.05,
            logs_specs=DefaultLogsSpecs(log_dir=f"logs/{job['name']}", redirects=Std.ALL),
        )
        began = time.monotonic()
        try:
            elastic_launch(config, process)(job)
            statuses[job["name"]] = {}
        except ChildFailedError as error:
            statuses[job["name"]] = {rank: failure.exitcode for rank, failure in error.failures.items()}
        print(f"{job['name']}: {time.monotonic() - began:.1f} s")
    Path("status.json").write_text(json.dumps(statuses))


def step_2_of(finished: Path, folder: Path) -> None:
    """A copy of a run of four steps, as if it had been cut off after its record of step 4 and before that step's checkpoint."""
    shutil.copytree(finished, folder)
    for name in ("last.pt", "step_0000004.pt"):
        (folder / "checkpoints" / name).unlink()


def process(job: dict) -> None:
    """Run one process of a job; those of one job read different images and draw different dropout, so there is none."""
    Dropout.draw = lambda self, x: (torch.ones_like(x, dtype=torch.bool), 1.0)
    if "harm" in job and os.environ["RANK"] == "1":
        {"kill": die_at_step_3, "unreadable": cannot_read}[job["harm"]]()
    sys.argv = [job["entry"], *job["arguments"]]
    run, schema = ENTRIES[job["entry"]]
    sys.exit(launch(run, schema, configs=ROOT / "configs", name=job["entry"]))


def die_at_step_3() -> None:
    finish = RunLog.end_step

    def end_step(log: RunLog, step: int) -> None:
        finish(log, step)
        if step == 3:
            time.sleep(0.2)  # the other process waits for this one by now
            os.kill(os.getpid(), signal.SIGKILL)

    RunLog.end_step = end_step


def cannot_read() -> None:
    def unreadable(data: PhraseCut, index: object) -> None:
        raise ClipSegError("17.jpg: not an image")

    PhraseCut.__getitem__ = unreadable


if __name__ == "__main__":
    main()
