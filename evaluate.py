"""Evaluate trained weights: `python evaluate.py checkpoint=RUN|WEIGHTS benchmark=NAME [key=value …]`.

Writes `metrics.json`, `samples.npz`, `provenance.json` and `report.html` into `OUT`, and prints the table beside the paper's.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from omegaconf import OmegaConf

import clipseg
from clipseg.data.phrasecut import PhraseCut
from clipseg.door import launch
from clipseg.errors import ClipSegError
from clipseg.measure.paper import paper_values
from clipseg.measure.tables import format_table
from clipseg.run.distributed import choose_device, started
from clipseg.run.evaluation import evaluate_into
from clipseg.run.loading import data_root
from clipseg.run.provenance import provenance
from clipseg.run.settings import EvaluateConfig


def evaluate(config: EvaluateConfig) -> None:
    """Measure the weights that `config` names on its benchmark."""
    device = choose_device(config.device)
    with started(device) as processes:
        model = clipseg.load(config.checkpoint, device=device)
        experiment, trained_on = training_run(config.checkpoint)
        root = config.data.root or trained_on
        if root is None:
            raise ClipSegError(
                f"{config.checkpoint} does not say what it was trained on; add data.root=FOLDER (or data.root=mini)"
            )
        data = PhraseCut(
            data_root(root),
            split=config.split,
            training=False,
            skip_known_bad=config.data.skip_known_bad,
            allow_missing=config.data.allow_missing,
        )
        origin = provenance(asdict(config), str(device)) | {
            "benchmark": config.benchmark,
            "split": config.split,
            "experiment": experiment,
        }
        folder = Path(processes.from_main(config.out))
        results = evaluate_into(
            folder,
            model,
            data,
            threshold=config.threshold,
            processes=processes,
            workers=config.data.workers,
            provenance=origin,
            seed=config.seed,
            save_predictions=Path(config.save_predictions) if config.save_predictions else None,
        )
        if processes.is_main:
            print(format_table(results.metrics(), paper_values(str(experiment), config.benchmark)))
            print(f"report: {folder / 'report.html'}")


def training_run(checkpoint: str) -> tuple[str | None, str | None]:
    """The experiment and `data.root` of the run that a checkpoint is from; None where it does not lie in a run folder."""
    path = Path(checkpoint)
    config_path = (path if path.is_dir() else path.parent.parent) / "config.yaml"
    if not config_path.is_file():
        return None, None
    config = OmegaConf.load(config_path)
    return OmegaConf.select(config, "experiment"), OmegaConf.select(config, "data.root")


if __name__ == "__main__":
    sys.exit(launch(evaluate, EvaluateConfig, configs=Path(__file__).parent / "configs", name="evaluate"))
