"""The benchmarks by name: what `evaluate.py benchmark=NAME` measures, writes and prints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipseg.data.classes import pascal5i_fold, unseen_classes
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.readers.coco import coco20i
from clipseg.data.readers.episodes import EpisodeReader
from clipseg.data.readers.folder import FolderData
from clipseg.data.readers.lvis import lvis_prompts
from clipseg.data.readers.pascal import PascalZeroShot, pascal_one_shot, pascal_text
from clipseg.data.sample import Reader
from clipseg.errors import ClipSegError
from clipseg.measure.paper import paper_beside
from clipseg.measure.tables import format_table
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import Resize
from clipseg.prompts.attention import choose_variants
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.evaluation import Evaluation
from clipseg.run.settings import EvaluateConfig
from clipseg.studies.input_size.curves import format_curves
from clipseg.studies.input_size.image_classes import class_folders, single_objects
from clipseg.studies.input_size.linear_probe import measure_linear_probe
from clipseg.studies.input_size.run import choose_sizes, measure_image_sizes
from clipseg.studies.prompt_forms.numbers import compare_forms, format_forms
from clipseg.studies.prompt_forms.run import FORMS, PromptForms
from clipseg.studies.visual_prompts.numbers import format_deltas
from clipseg.studies.visual_prompts.run import PromptStudy, object_source
from clipseg.studies.zero_shot.results import format_multiclass
from clipseg.studies.zero_shot.run import ZeroShot


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
    measure(job, phrasecut_data(job))


def phrasecut_data(job: Job) -> PhraseCut:
    """The split in PhraseCut's layout that a job names, whole images."""
    config = job.config
    return PhraseCut(
        job.root,
        split=config.split,
        training=False,
        seed=config.seed,
        visual_support=config.benchmark == "phrasecut_visual",
        skip_known_bad=config.data.skip_known_bad,
        allow_missing=config.data.allow_missing,
        allow_degenerate=config.data.allow_degenerate,
    )


def prompt_forms(job: Job) -> None:
    """What other words around the same phrases do to the masks (Fig. 7)."""
    if job.config.prompt.templates != "plain" or job.config.prompt.ensemble:
        raise ClipSegError("benchmark=prompt_forms compares all forms; leave prompt.templates and prompt.ensemble out")
    study = PromptForms(evaluation=evaluation_of(job, phrasecut_data(job)), forms=FORMS)
    forms = study.run(progress=f"evaluating {job.config.split}")
    if job.processes.is_main:
        comparison = compare_forms(forms, seed=job.config.seed)
        study.write(job.folder, comparison)
        print(format_forms(comparison))


def pascal5i(job: Job) -> None:
    """The classes of a fold on Pascal VOC 2012, each shown by another image (Tab. 5), or asked for by name (Tab. 7)."""
    config = job.config
    assert config.fold is not None  # the settings have checked this
    if config.benchmark == "pascal5i_one_shot":
        shown = pascal_one_shot(job.root, split=config.split, fold=config.fold, seed=config.seed, episodes=config.episodes)
        measure_episodes(job, shown)
    else:
        named = pascal_text(job.root, split=config.split, classes=pascal5i_fold(config.fold), seed=config.seed)
        measure(job, named, resize="pad")


def coco20i_episodes(job: Job) -> None:
    """1,000 episodes of a fold's classes on COCO, each shown by another image (Tab. 6), or asked for by name."""
    config = job.config
    assert config.fold is not None
    data = coco20i(
        job.root,
        split=config.split,
        fold=config.fold,
        seed=config.seed,
        visual_support=config.benchmark == "coco20i_one_shot",
        episodes=config.episodes,
    )
    measure_episodes(job, data)


def measure_episodes(job: Job, data: EpisodeReader) -> None:
    """`measure`, aspect kept; the episodes are written down beside the figures."""
    if job.processes.is_main:
        data.save(job.folder / "episodes.json")
    measure(job, data, resize="pad")


def lvis(job: Job) -> None:
    """Prompts that name no class: affordances, attributes or parts (Tab. 8)."""
    kind = job.config.benchmark.removeprefix("lvis_")
    measure(job, lvis_prompts(job.root, split=job.config.split, kind=kind, seed=job.config.seed))


def folder(job: Job) -> None:
    """A folder of the user's own, by its phrases."""
    measure(job, FolderData(job.root, split=job.config.split, training=False, seed=job.config.seed))


def measure(job: Job, data: Reader, *, resize: Resize = "squash") -> None:
    """The one evaluation of all benchmarks whose tasks are binary masks: measures, writes, prints.

    Args:
        job: says how the tasks are described, and where the results go.
        data: whole images with their tasks.
        resize: squashed to the model's size, or aspect kept and padded, queries and supports alike.
    """
    config, evaluation = job.config, evaluation_of(job, data, resize=resize)
    save_predictions = Path(config.save_predictions) if config.save_predictions else None
    results = evaluation.run(save_predictions=save_predictions, progress=f"evaluating {config.split}")
    if job.processes.is_main:
        evaluation.write(job.folder, results, seed=config.seed)
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
        reading=job.config.data,
        resize=resize,
        intensity_tests=job.config.intensity_tests,
    )


def image_size(job: Job) -> None:
    """The benchmark `phrasecut` at several sizes of the input, and their curve (after Fig. 5)."""
    config, model = job.config, job.model
    sizes = choose_sizes(config.image_sizes, native=model.config.image_size, patch_size=model.backbone.patch_size)
    evaluation = evaluation_of(job, phrasecut_data(job))
    curves = measure_image_sizes(evaluation, sizes, folder=job.folder, seed=config.seed)
    if job.processes.is_main:
        curves.write(job.folder)
        print(format_curves(curves))


def linear_probe(job: Job) -> None:
    """How well classes are told apart by CLIP's image embedding over the size of the input (Fig. 5); no decoder takes part."""
    config, visual = job.config, job.model.backbone.clip.visual
    sizes = choose_sizes(config.image_sizes, native=visual.image_size[0], patch_size=visual.patch_size[0])
    is_synthetic = config.data.root == "mini"
    curves = measure_linear_probe(
        job.model.backbone,
        single_objects(seed=config.seed) if is_synthetic else class_folders(job.root, split=config.split, seed=config.seed),
        sizes=sizes,
        provenance={**job.origin, "backbone": job.model.config.backbone},
        processes=job.processes,
        reading=config.data,
    )
    if job.processes.is_main:
        curves.write(job.folder)
        print(format_curves(curves))


def pascal_zeroshot(job: Job) -> None:
    """Which of the twenty classes of Pascal VOC 2012 each pixel is, some of them unseen in training (Tab. 4)."""
    config = job.config
    assert config.unseen is not None
    evaluation = ZeroShot(
        model=job.model,
        data=PascalZeroShot(job.root, split=config.split),
        prompt=config.prompt,
        seed=config.seed,
        background_threshold=config.background_threshold,
        unseen=unseen_classes(config.unseen),
        provenance=job.origin,
        processes=job.processes,
        reading=config.data,
    )
    results, miou = evaluation.run()
    if job.processes.is_main:
        evaluation.write(job.folder, results, miou)
        print(format_multiclass(results))


def visual_prompts(job: Job) -> None:
    """What showing an object to CLIP does for its name (Tab. 2); of the weights only the backbone counts."""
    config = job.config
    source = object_source(job.root, split=config.split, settings=config.data)
    variants = choose_variants(config.variant)
    study = PromptStudy(job.model.backbone, source, variants=variants, image_size=config.image_size)
    results = study.run(provenance=job.origin, processes=job.processes, reading=config.data, progress=True)
    if job.processes.is_main:
        study.write(job.folder, results, seed=config.seed)
        print(format_deltas(results))


BENCHMARKS: Mapping[str, Callable[[Job], None]] = {
    "phrasecut": phrasecut,
    "phrasecut_visual": phrasecut,
    "prompt_forms": prompt_forms,
    "visual_prompts": visual_prompts,
    "pascal_zeroshot": pascal_zeroshot,
    "pascal5i_one_shot": pascal5i,
    "pascal5i_text": pascal5i,
    "coco20i_one_shot": coco20i_episodes,
    "coco20i_text": coco20i_episodes,
    "lvis_affordances": lvis,
    "lvis_attributes": lvis,
    "lvis_meronymy": lvis,
    "folder": folder,
    "image_size": image_size,
    "linear_probe": linear_probe,
}
