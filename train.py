"""Train a decoder: `python train.py experiment=NAME [key=value …]`; without arguments the bundled mini experiment.

One process or many (`torchrun --nproc_per_node=N train.py …`), one output folder, `OUT`:
`config.yaml`, `provenance.json`, `checkpoints/`, `metrics.jsonl`, TensorBoard's files, `eval/<split>/`.
With `resume=auto` a run goes on where it stopped, and one that is finished is left alone.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clipseg.entry import check_resumable, given_keys, launch, to_yaml
from clipseg.files import atomic_write, locked, remove_leftovers, write_json
from clipseg.network.backbone import weights_checksum
from clipseg.network.feature_cache import feature_cache
from clipseg.run.benchmarks import FORMATS, SWEEP_REPORT, find
from clipseg.run.checkpoint import find_resume
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import choose_device, started
from clipseg.run.evaluation import Evaluation, absent_phrases
from clipseg.run.interruption import stoppable
from clipseg.run.loading import data_root
from clipseg.run.log import RunLog, log_results, recorded_steps
from clipseg.run.provenance import provenance
from clipseg.run.settings import PromptSettings, TrainConfig
from clipseg.run.training import initial_model, set_deterministic, train_decoder
from clipseg.run.training_data import Validation, training_data, validation_data


def train(config: TrainConfig) -> None:
    """Build what the config names, train it, and evaluate it on `evaluate_splits`."""
    set_deterministic(config.deterministic)
    device = choose_device(config.device)
    with (
        started(device) as processes,
        stoppable(f"go on with resume=auto out={config.out}") as interruption,
        contextlib.ExitStack() as held,
    ):
        folder = Path(processes.broadcast(config.out))
        if processes.is_main:
            held.enter_context(locked(folder))
        # Rank 0 alone looks: it alone writes there, and the others may be on machines that do not see its disk.
        state = processes.broadcast(find_resume(config.resume, folder) if processes.is_main else None)
        if config.resume is not None and processes.is_main:
            given = folder if config.resume == "auto" else Path(config.resume)
            check_resumable(config, (given if given.is_dir() else given.parent.parent) / "config.yaml")
        done = config.resume == "auto" and state is not None and finished(config, folder, state)
        if processes.broadcast(done):
            if processes.is_main:
                print(f"{folder}: finished already")
            return
        model = initial_model(config, device, given=given_keys())
        origin = provenance(asdict(config), str(device)) | {"experiment": config.experiment}
        if config.training.init is not None:
            origin["init"] = {"weights": config.training.init, "decoder_sha256": weights_checksum(model.decoder)}
        cache = feature_cache(config.training.feature_cache, model)
        if cache is not None:
            origin["feature_cache"] = cache.folder.name
        origin |= {f"training_{name}": origin[name] for name in ("seed", "commit", "protocol")}
        read = FORMATS[config.data.format]
        root = data_root(config.data.root, read.layout)
        data = training_data(config, root)
        # Whatever it is trained with, a decoder is asked by the bare phrase when it is validated, as in the paper's tables, and
        # by its support alone where there is one.
        asked = PromptSettings(text_weight=[0.0, 0.0], visual_prompt=config.prompt.visual_prompt)
        evaluation = Evaluation(
            model=model,
            data=validation_data(config, root, config.data.val_split),
            condition=Conditioner(asked, resize=read.resize),
            threshold=config.threshold,
            provenance=origin,
            processes=processes,
            loader=config.data,
        )
        if processes.is_main:
            for place in ("", "checkpoints", *(f"eval/{name}" for name, _, _ in evaluations(config))):
                remove_leftovers(folder / place)
            with atomic_write(folder / "config.yaml", "w") as file:
                file.write(to_yaml(config))
            write_json(folder / "provenance.json", origin)
        with RunLog(
            folder if processes.is_main else None,
            steps=config.training.steps,
            start=state["step"] if state else 0,
            every=config.training.log_every,
            processes=processes,
            state=state.get("log") if state else None,
        ) as log:
            log.config(to_yaml(config))
            validation = Validation(evaluation, images=config.training.validation_images, log=log)
            train_decoder(
                model,
                data,
                settings=config.training,
                seed=config.seed,
                loader=config.data,
                threshold=config.threshold,
                folder=folder,
                state=state,
                condition=Conditioner(config.prompt, resize=read.resize, cache=cache),
                validate=validation,
                log=log,
                processes=processes,
                interruption=interruption,
                debug=config.debug,
            )
            if config.debug:
                return
            log.hparams(asdict(config), validation.metrics)
        for name, split, benchmark in evaluations(config):
            measured = validation_data(config, root, split, visual=benchmark == "phrasecut_visual")
            evaluation = replace(
                evaluation,
                data=measured,
                absent=absent_phrases(measured),
                provenance=origin | {"benchmark": benchmark, "split": split},
                intensity_tests=config.intensity_tests,
            )
            results = evaluation.run(progress=f"evaluating {name}")
            if processes.is_main:
                evaluation.write(folder / "eval" / name, results, seed=config.seed)
                log_results(folder / "eval" / name, results, step=config.training.steps)
                from clipseg.measure.tables import format_table  # at the end, as all that pages need

                print(f"\n{name}\n{format_table(results.metrics())}\nreport: {folder / 'eval' / name / 'report.html'}")


def evaluations(config: TrainConfig) -> list[tuple[str, str, str]]:
    """Return what follows training: (folder under `eval`, split, benchmark) of each evaluation."""
    by_text = [(split, split, config.data.format) for split in config.evaluate_splits]
    visual = [(f"{split}_visual", split, "phrasecut_visual") for split in config.evaluate_visual]
    return by_text + visual


def finished(config: TrainConfig, folder: Path, state: Mapping[str, Any]) -> bool:
    """Whether all that `config` asks for has been done, to the last file: what a sweep need not do again."""
    steps = state["step"] if state.get("ended") else config.training.steps
    asked = [folder / "eval" / name / file for name, _, _ in evaluations(config) for file in ("metrics.json", "report.html")]
    return min(state["step"], recorded_steps(folder)) >= steps and all(path.is_file() for path in asked)


def report_sweep(jobs: Sequence[TrainConfig]) -> None:
    """Write the page of a sweep whose settings name a folder for it."""
    if jobs[0].report is not None:
        find(SWEEP_REPORT)(jobs)


if __name__ == "__main__":
    sys.exit(launch(train, TrainConfig, configs=Path(__file__).parent / "configs", name="train", finish=report_sweep))
