"""Evaluate trained weights: `python evaluate.py checkpoint=RUN|WEIGHTS benchmark=NAME [key=value …]`.

Writes `metrics.json`, `provenance.json`, `report.html` and the numbers of each sample (`.npz`) into `OUT`, and prints the table
beside the paper's.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

import clipseg
from clipseg.entry import given_keys, launch, read_config
from clipseg.errors import ClipSegError
from clipseg.files import locked, read_json
from clipseg.run.benchmarks import BENCHMARKS, find
from clipseg.run.distributed import choose_device, started
from clipseg.run.interruption import stoppable
from clipseg.run.jobs import Job
from clipseg.run.loading import data_root
from clipseg.run.provenance import provenance
from clipseg.run.settings import EvaluateConfig, FoldKeys, evaluate_schema


def evaluate(config: EvaluateConfig) -> None:
    """Measure the weights that `config` names on its benchmark."""
    device = choose_device(config.device)
    with started(device) as processes, stoppable("evaluate again"), contextlib.ExitStack() as held:
        model = clipseg.load(config.checkpoint, device=device, precision=config.precision)
        if not config.calibration or config.benchmark.endswith(("_visual", "_one_shot")):
            model.calibration = {}  # it is of phrases, not of pictures of the same
        elif "threshold" in given_keys():
            model.calibration = {name: replace(own, threshold=config.threshold) for name, own in model.calibration.items()}
        trained = training_run(config.checkpoint)
        experiment = trained.experiment
        fold = config.fold if isinstance(config, FoldKeys) else None
        if fold is not None and experiment is not None:
            if trained.fold not in (None, fold):
                raise ClipSegError(
                    f"fold={fold}: {config.checkpoint} was trained with fold {trained.fold} held out; ask for it"
                )
            experiment = f"{experiment}_fold{fold}"
        # Written back, so that the provenance says what was measured on.
        root = config.data.root = config.data.root or trained.root
        if root is None:
            raise ClipSegError(
                f"{config.checkpoint} does not say what it was trained on; add data.root=FOLDER (or data.root=mini)"
            )
        origin = provenance(asdict(config), str(device))
        origin |= {"benchmark": config.benchmark, "split": config.split, "experiment": experiment}
        if model.calibration:
            origin["calibration"] = {phrase: asdict(own) for phrase, own in model.calibration.items()}
        folder = Path(processes.broadcast(config.out))
        if processes.is_main:
            if not config.overwrite:
                check_out(folder, origin)
            held.enter_context(locked(folder))
        job = Job(
            config=config,
            model=model,
            root=data_root(root, BENCHMARKS[config.benchmark].layout),
            folder=folder,
            origin=origin | {f"training_{name}": getattr(trained, name) for name in ("seed", "commit", "protocol")},
            processes=processes,
        )
        find(BENCHMARKS[config.benchmark].run)(job)
        if processes.is_main:
            print(f"protocol: {config.protocol}; report: {job.folder / 'report.html'}")


def check_out(folder: Path, origin: Mapping[str, Any]) -> None:
    """Check that a folder is empty, or holds an earlier answer to the same question.

    Raises:
        ClipSegError: a training run, results of another checkpoint, benchmark, split, protocol or precision, or
            something else lies there.
    """
    remedy = "choose another out=, or add overwrite=true"
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if (folder / "config.yaml").exists() or (folder / "checkpoints").exists():
        raise ClipSegError(f"out={folder} holds a training run; {remedy}")
    there = read_json(folder / "provenance.json") if (folder / "provenance.json").is_file() else None
    if not isinstance(there, dict):
        raise ClipSegError(f"out={folder} holds something else than an evaluation; {remedy}")
    asked = there["config"] if isinstance(there.get("config"), dict) else {}
    for name, ours, theirs in (
        ("benchmark", origin["benchmark"], there.get("benchmark")),
        ("split", origin["split"], there.get("split")),
        ("protocol", origin["protocol"], there.get("protocol")),
        ("precision", origin["config"]["precision"], asked.get("precision", "float32")),
        ("checkpoint", origin["config"]["checkpoint"], asked.get("checkpoint")),
    ):
        if ours != theirs:
            raise ClipSegError(f"out={folder} holds results of {name}={theirs}, not {ours}; {remedy}")


class TrainingRun(NamedTuple):
    """The origin of a checkpoint: `experiment`, `data.root`, `fold`, `seed`, `protocol` and commit; None where unknown."""

    experiment: str | None = None
    root: str | None = None
    fold: int | None = None
    seed: int | None = None
    protocol: str | None = None
    commit: str | None = None


def training_run(checkpoint: str) -> TrainingRun:
    """The run that a checkpoint is from; nothing is known of one that does not lie in a run folder."""
    path = Path(checkpoint)
    folder = path if path.is_dir() else path.parent.parent
    config_path = folder / "config.yaml"
    if not path.exists() or not os.path.lexists(config_path):
        return TrainingRun()
    config = read_config(config_path)
    asked = {}
    for name in (name for name in TrainingRun._fields if name != "commit"):
        key, kind = "data.root" if name == "root" else name, int if name in ("fold", "seed") else str
        asked[name] = OmegaConf.select(config, key)
        if not isinstance(asked[name], kind | None):
            raise ClipSegError(f"{config_path}: {key} is {asked[name]}, no {kind.__name__}; restore it")
    origin = read_json(folder / "provenance.json") if (folder / "provenance.json").is_file() else None
    return TrainingRun(**asked, commit=origin.get("commit") if isinstance(origin, dict) else None)


if __name__ == "__main__":
    sys.exit(launch(evaluate, evaluate_schema(), configs=Path(__file__).parent / "configs", name="evaluate"))
