"""The end of a sweep: the paper in miniature, from what its runs left on disk, and the study of visual prompts beside them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from clipseg.data.mini.phrasecut import default_root, materialize
from clipseg.errors import ClipSegError
from clipseg.files import read_json
from clipseg.measure.alignment import Runs, load_runs
from clipseg.measure.results import Results
from clipseg.network.model import create_model
from clipseg.paper.figures import Curve
from clipseg.paper.page import write_miniature
from clipseg.paper.questions import EXPERIMENTS, sections
from clipseg.prompts.attention import choose_variants
from clipseg.run.distributed import Processes, choose_device, started
from clipseg.run.log import records
from clipseg.run.provenance import provenance
from clipseg.run.settings import EvaluationData, TrainConfig
from clipseg.studies.visual_prompts.numbers import PromptDeltas
from clipseg.studies.visual_prompts.run import PromptStudy, object_source

SPLIT = "test"  # of the study, and of the named subsets
VALIDATED = "val/miou_best"


def report_sweep(jobs: Sequence[TrainConfig]) -> None:
    """Write the page of a sweep into the folder `report` of its settings; nothing where there is none.

    The study of visual prompts is kept beside the runs, and measured again only by other code, weights or data.

    Raises:
        ClipSegError: no job left results, two jobs are of one experiment and seed, or results are damaged.
    """
    if jobs[0].report is None:
        return
    folders = run_folders(jobs)
    with started(choose_device(jobs[0].device)) as processes:
        device = str(choose_device(jobs[0].device))
        study = visual_prompt_study(Path(os.path.commonpath(folders.values())) / "visual_prompts", device, processes)
        if processes.is_main:
            runs = {run: load_runs(folder) for run, folder in folders.items()}
            page = write_miniature(
                Path(jobs[0].report),
                sections(runs, study),
                facts(folders, runs, study),
                curves=learning_curves(folders),
                errors=by_subset(runs),
            )
            print(f"report: {page}")


def run_folders(jobs: Sequence[TrainConfig]) -> dict[tuple[str, int], Path]:
    """The folders of the jobs that left results, by experiment and training seed."""
    folders: dict[tuple[str, int], Path] = {}
    for job in jobs:
        run, folder = (job.experiment, job.seed), Path(job.out)
        if not any(folder.glob(f"eval/*/{Results.FILE}")):
            continue
        if run in folders:
            raise ClipSegError(f"{folders[run]} and {folder}: both are {job.experiment} with seed {job.seed}; sweep each once")
        folders[run] = folder
    if not folders:
        raise ClipSegError(f"report={jobs[0].report}: no run of the sweep left results; see the errors above")
    return folders


def visual_prompt_study(folder: Path, device: str, processes: Processes) -> PromptDeltas:
    """All variants of visual prompts on the bundled CLIP: read from `folder` where they lie there, else measured."""
    model = create_model("mini").to(device)
    data = {"root": "mini", "version": default_root().name}
    config = {"data": data, "backbone": model.backbone.checksum(), "protocol": "released"}
    origin = provenance(config, device) | {"benchmark": "visual_prompts", "split": SPLIT}
    if (folder / PromptDeltas.FILE).is_file():
        found = PromptDeltas.load(folder)
        if found.provenance == origin:
            return found
    source = object_source(materialize(), split=SPLIT, settings=EvaluationData())
    study = PromptStudy(model.backbone, source, variants=choose_variants("all"))
    results = study.run(provenance=origin, processes=processes, progress=True)
    if processes.is_main:
        study.write(folder, results, seed=0)
    return results


def facts(folders: Mapping[tuple[str, int], Path], runs: Mapping[tuple[str, int], Runs], study: PromptDeltas) -> dict[str, str]:
    """Return what the page says of the origin of its figures."""
    origins = [read_json(folder / "provenance.json") for folder in folders.values()] + [study.provenance]
    samples = {
        f"{benchmark} `{split}`": f"{len(result)} on {len(np.unique(result.image_key))} images"
        for results in runs.values()
        for (benchmark, split), result in results.items()
    }
    versions = [", ".join(f"{name} {number}" for name, number in sorted(each["versions"].items())) for each in origins]
    return {
        "runs": f"{len(runs)}, training seeds {', '.join(map(str, sorted({seed for _, seed in runs})))}",
        "samples": "; ".join(f"{where}: {size}" for where, size in samples.items()),
        "time": _time(folders.values(), runs.values(), study),
        "machine": _distinct(each.get("machine") for each in origins),
        "commit": _distinct(each.get("commit") for each in origins),
        "versions": _distinct(versions),
    }


def _distinct(texts: Iterable[str | None]) -> str:
    return "; ".join(sorted({text for text in texts if text})) or "not recorded"


def _time(folders: Iterable[Path], runs: Iterable[Runs], study: PromptDeltas) -> str:
    """Seconds of all runs added up, as minutes: of training with its validations, of the evaluations, of the study."""
    trained = [_training_seconds(folder) for folder in folders]
    known = [seconds for seconds in trained if seconds is not None]
    evaluated = sum(result.seconds for results in runs for result in results.values())
    text = f"training {sum(known) / 60:.0f} min" if known else "training not recorded"
    if 0 < len(known) < len(trained):
        text += f" ({len(trained) - len(known)} runs did not record it)"
    return f"{text}, evaluations {evaluated / 60:.0f} min, visual prompts {study.seconds / 60:.1f} min; added up over all runs"


def _training_seconds(folder: Path) -> float | None:
    found = [figures["speed/seconds"] for _, figures in records(folder / "metrics.jsonl") if "speed/seconds" in figures]
    return found[-1] if found else None


def learning_curves(folders: Mapping[tuple[str, int], Path]) -> dict[str, list[Curve]]:
    """Steps, and mIoU in percent at its best threshold in the validation after them: of each experiment, a curve a seed."""
    curves: dict[str, list[Curve]] = {}
    for (experiment, _), folder in sorted(folders.items()):
        found = [(step, figures[VALIDATED]) for step, figures in records(folder / "metrics.jsonl") if VALIDATED in figures]
        if found:
            curves.setdefault(experiment, []).append(([step for step, _ in found], [100 * value for _, value in found]))
    return {experiment: curves[experiment] for experiment in EXPERIMENTS if experiment in curves}


def by_subset(runs: Mapping[tuple[str, int], Runs]) -> dict[str, dict[str, float]]:
    """Mean IoU in percent at the evaluation's threshold on the named subsets of `test`: subset -> experiment -> over seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for (experiment, _), results in sorted(runs.items()):
        figures = results["phrasecut", SPLIT].metrics() if ("phrasecut", SPLIT) in results else {}
        for name, value in figures.items():
            if name.startswith("subset/") and name.endswith("/mean_iou_official"):
                found.setdefault(name.split("/")[1], {}).setdefault(experiment, []).append(100 * value)
    return {subset: {name: float(np.mean(values)) for name, values in each.items()} for subset, each in found.items()}
