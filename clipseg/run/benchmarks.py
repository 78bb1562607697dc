"""The benchmarks by name: what `evaluate.py benchmark=NAME` measures, writes and prints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipseg.data.phrasecut import PhraseCut
from clipseg.measure.paper import paper_values
from clipseg.measure.prompt_deltas import format_deltas
from clipseg.measure.tables import format_table
from clipseg.network.model import CLIPSeg
from clipseg.prompts.attention import choose_variants
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.evaluation import Evaluation
from clipseg.run.prompt_study import PromptStudy, object_source
from clipseg.run.settings import EvaluateConfig


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a benchmark is given.

    Attributes:
        config: of `evaluate.py`.
        model: the weights that are measured.
        root: the data's folder.
        folder: for all that is written.
        origin: provenance, with `benchmark`, `split` and the `experiment` that trained the weights.
        processes: who shares the work.
    """

    config: EvaluateConfig
    model: CLIPSeg
    root: Path
    folder: Path
    origin: Mapping[str, Any]
    processes: Processes


def phrasecut(job: Job) -> None:
    """Masks by phrases (Tab. 3), or by visual prompts alone, on phrases that occur more than once (Tab. 9)."""
    config = job.config
    data = PhraseCut(
        job.root,
        split=config.split,
        training=False,
        seed=config.seed,
        visual_support=config.benchmark == "phrasecut_visual",
        skip_known_bad=config.data.skip_known_bad,
        allow_missing=config.data.allow_missing,
        allow_degenerate=config.data.allow_degenerate,
    )
    evaluation = Evaluation(
        model=job.model,
        data=data,
        condition=Conditioner(config.prompt),
        threshold=config.threshold,
        provenance=job.origin,
        processes=job.processes,
        workers=config.data.workers,
    )
    save_predictions = Path(config.save_predictions) if config.save_predictions else None
    results = evaluation.run(save_predictions=save_predictions, progress=f"evaluating {config.split}")
    if job.processes.is_main:
        evaluation.write(job.folder, results, seed=config.seed)
        print(format_table(results.metrics(), paper_values(str(job.origin["experiment"]), config.benchmark)))


def visual_prompts(job: Job) -> None:
    """What showing an object to CLIP does for its name (Tab. 2); of the weights only the backbone counts."""
    config = job.config
    source = object_source(job.root, split=config.split, settings=config.data)
    variants = choose_variants(config.variant)
    study = PromptStudy(job.model.backbone, source, variants=variants, image_size=config.image_size)
    results = study.run(provenance=job.origin, processes=job.processes, progress=True)
    if job.processes.is_main:
        study.write(job.folder, results, seed=config.seed)
        print(format_deltas(results))


BENCHMARKS: Mapping[str, Callable[[Job], None]] = {
    "phrasecut": phrasecut,
    "phrasecut_visual": phrasecut,
    "visual_prompts": visual_prompts,
}
