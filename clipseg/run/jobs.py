"""The jobs of `evaluate.py`: each measures one benchmark, writes into a folder and prints. Studies have jobs of their own."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipseg.data.layout import is_own_folder
from clipseg.data.phrase_tasks import PhraseTasks, ReaderOptions, visual_evaluation
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import Reader
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import Resize
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.evaluation import Evaluation, absent_phrases
from clipseg.run.settings import EpisodeKeys, EvaluateConfig, FoldKeys, MaskKeys

# Readers other than PhraseCut's are imported by the jobs that need them.


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a benchmark is given.

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
    """Measure masks by phrases (Tab. 3), or by visual prompts alone (Tab. 9)."""
    measure(job, phrasecut_data(job))


def phrasecut_data(job: Job) -> PhraseTasks:
    """The split in PhraseCut's layout that a job names, whole images; by visual prompts also of a user's folder."""
    config = job.config
    if config.benchmark == "phrasecut_visual":
        return phrase_data(job, visual_evaluation(seed=config.seed, protocol=config.protocol))
    return PhraseCut(job.root, ReaderOptions(seed=config.seed), split=config.split, leniency=config.data)


def phrase_data(job: Job, options: ReaderOptions, *, split: str | None = None) -> PhraseTasks:
    """A split, of `config.split` by default, in PhraseCut's layout or else of a folder of the user's own."""
    split = split or job.config.split
    if is_own_folder(job.root):
        from clipseg.data.readers.folder import FolderData

        return FolderData(job.root, options, split=split)
    return PhraseCut(job.root, options, split=split, leniency=job.config.data)


def pascal5i(job: Job) -> None:
    """Measure the classes of a fold on Pascal VOC 2012, each shown by another image (Tab. 5), or asked for by name (Tab. 7)."""
    from clipseg.data.readers import pascal

    _few_shot(job, pascal.pascal5i, resize="canvas")


def coco20i(job: Job) -> None:
    """Measure 1,000 episodes of a fold's classes on COCO, each shown by another image (Tab. 6), or asked for by name."""
    from clipseg.data.readers import coco

    _few_shot(job, coco.coco20i, resize="antialias", class_lists=job.config.data.class_lists)


def _few_shot(job: Job, reader: Callable[..., Any], *, resize: Resize, **lists: str | None) -> None:
    """`measure` on episodes, which are written down beside the figures; what they were drawn from is part of the results."""
    config = job.config
    assert isinstance(config, FoldKeys)
    assert isinstance(config, EpisodeKeys)
    data = reader(
        job.root,
        split=config.split,
        fold=config.fold,
        seed=config.seed,
        visual_support=config.benchmark.endswith("_one_shot"),
        episodes=config.episodes,
        **lists,
    )
    facts = {name: data.about[name] for name in ("labels", "drawn")}
    measure(replace(job, origin={**job.origin, **facts}), data, resize=resize)
    if job.processes.is_main:
        data.save(job.folder / "episodes.json")


def lvis(job: Job) -> None:
    """Measure prompts that name no class: affordances, attributes or parts (Tab. 8)."""
    from clipseg.data.readers.lvis import lvis_prompts

    kind = job.config.benchmark.removeprefix("lvis_")
    measure(job, lvis_prompts(job.root, split=job.config.split, kind=kind, seed=job.config.seed))


def folder(job: Job) -> None:
    """Measure a folder of the user's own, by its phrases."""
    from clipseg.data.readers.folder import FolderData

    measure(job, FolderData(job.root, ReaderOptions(seed=job.config.seed), split=job.config.split))


def measure(job: Job, data: Reader, *, resize: Resize = "squash") -> None:
    """The one evaluation of all benchmarks whose tasks are binary masks: measures, writes, prints.

    Args:
        job: says how the tasks are described, and where the results go.
        data: whole images with their tasks.
        resize: how queries and supports come to the model's size.
    """
    config, evaluation = job.config, evaluation_of(job, data, resize=resize)
    assert isinstance(config, MaskKeys)
    save_predictions = Path(config.save_predictions) if config.save_predictions else None
    results = evaluation.run(save_predictions=save_predictions, progress=f"evaluating {config.split}")
    if job.processes.is_main:
        known = job.model.calibration
        others = sorted(set(results.phrase.tolist()) - known.keys()) if known else []
        if others:
            warnings.warn(
                f"{config.checkpoint} has no threshold of its own for {len(others)} phrases, such as {others[0]!r:.60}; "
                f"{config.threshold} is taken",
                stacklevel=2,
            )
        evaluation.write(job.folder, results, seed=config.seed)
        from clipseg.measure.paper import paper_beside  # at the end, as all that pages need
        from clipseg.measure.tables import format_table

        print(format_table(results.metrics(), paper_beside(results.provenance)))


def evaluation_of(job: Job, data: Reader, *, resize: Resize = "squash") -> Evaluation:
    """The evaluation that a job asks for, on this data."""
    return Evaluation(
        model=job.model,
        data=data,
        condition=Conditioner(job.config.prompt, resize=resize),
        threshold=job.config.threshold,
        provenance=job.origin,
        processes=job.processes,
        loader=job.config.data,
        intensity_tests=isinstance(job.config, MaskKeys) and job.config.intensity_tests,
        absent=absent_phrases(data),
    )
