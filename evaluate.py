"""Evaluate trained weights: `python evaluate.py checkpoint=RUN|WEIGHTS benchmark=NAME [key=value …]`.

Writes `metrics.json`, `provenance.json`, `report.html` and the numbers of each sample (`.npz`) into `OUT`, and prints the table
beside the paper's.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from omegaconf import OmegaConf

import clipseg
from clipseg.door import launch
from clipseg.errors import ClipSegError
from clipseg.run.benchmarks import BENCHMARKS, Job
from clipseg.run.distributed import choose_device, started
from clipseg.run.loading import data_root
from clipseg.run.provenance import provenance
from clipseg.run.settings import EvaluateConfig


def evaluate(config: EvaluateConfig) -> None:
    """Measure the weights that `config` names on its benchmark."""
    device = choose_device(config.device)
    with started(device) as processes:
        model = clipseg.load(config.checkpoint, device=device)
        experiment, trained_on, held_out = training_run(config.checkpoint)
        if config.fold is not None and experiment is not None:
            if held_out not in (None, config.fold):
                raise ClipSegError(
                    f"fold={config.fold}: {config.checkpoint} was trained with fold {held_out} held out; ask for it"
                )
            experiment = f"{experiment}_fold{config.fold}"
        root = config.data.root or trained_on
        if root is None:
            raise ClipSegError(
                f"{config.checkpoint} does not say what it was trained on; add data.root=FOLDER (or data.root=mini)"
            )
        origin = provenance(asdict(config), str(device))
        job = Job(
            config=config,
            model=model,
            root=data_root(root),
            folder=Path(processes.from_main(config.out)),
            origin=origin | {"benchmark": config.benchmark, "split": config.split, "experiment": experiment},
            processes=processes,
        )
        BENCHMARKS[config.benchmark](job)
        if processes.is_main:
            print(f"report: {job.folder / 'report.html'}")


def training_run(checkpoint: str) -> tuple[str | None, str | None, int | None]:
    """Experiment, `data.root` and `fold` of the run that a checkpoint is from; None where it does not lie in a run folder."""
    path = Path(checkpoint)
    config_path = (path if path.is_dir() else path.parent.parent) / "config.yaml"
    if not config_path.is_file():
        return None, None, None
    config = OmegaConf.load(config_path)
    return OmegaConf.select(config, "experiment"), OmegaConf.select(config, "data.root"), OmegaConf.select(config, "fold")


if __name__ == "__main__":
    sys.exit(launch(evaluate, EvaluateConfig, configs=Path(__file__).parent / "configs", name="evaluate"))
