"""A trained model over the size of its input: Fig. 5, asked of segmentation. One evaluation a size, and their curve."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clipseg.errors import ClipSegError
from clipseg.run.evaluation import Evaluation
from clipseg.run.jobs import Job, evaluation_of, phrasecut_data
from clipseg.studies.input_size.curves import SizeCurves, format_curves
from clipseg.studies.input_size.settings import SizeKeys

SCALES = (0.5, 0.75, 1, 1.25, 1.5, 2)  # the paper states no sizes; these times the model's own, in whole patches
TITLES = {"miou": "mIoU", "iou_fg": "IoU_FG", "ap": "AP", "mean_iou_official": "mean IoU, original size"}
ABOUT = (
    "Images are squashed to each size, the positional embedding is interpolated. mIoU, IoU_FG and AP compare masks at that "
    "size; the mean IoU of samples at the images' original size asks the same of all sizes. Each size has its own results "
    "folder; clipseg compare tests the difference of two."
)


def choose_sizes(given: Sequence[int] | None, *, native: int, patch_size: int) -> tuple[int, ...]:
    """The sides in pixels that are measured: those given, or where None half to twice the native side in whole patches.

    Raises:
        ClipSegError: a size that is no multiple of the patch size.
    """
    if given is None:
        return tuple(sorted({max(int(scale * native / patch_size + 0.5), 1) * patch_size for scale in SCALES}))
    wrong = [size for size in given if size % patch_size]
    if wrong:
        raise ClipSegError(f"image_sizes={list(given)}: {wrong[0]} is no multiple of the patch size {patch_size}")
    return tuple(given)


def measure_image_sizes(evaluation: Evaluation, sizes: Sequence[int], *, folder: Path, seed: int) -> SizeCurves:
    """Run one evaluation at several sizes; on every process the curves of all.

    Args:
        evaluation: of the model at its own size.
        sizes: sides in pixels, multiples of its patch size.
        folder: each size's results are written to `folder/<size>`, as those of any evaluation.
        seed: draws the random samples of their reports.
    """
    metrics = []
    for size in sizes:
        at_size = replace(
            evaluation, model=evaluation.model.at_size(size), provenance={**evaluation.provenance, "image_size": size}
        )
        results = at_size.run(progress=f"evaluating at {size}x{size}")
        metrics.append(results.metrics())
        if evaluation.processes.is_main:
            at_size.write(folder / str(size), results, seed=seed)
    return SizeCurves(
        sizes=tuple(sizes),
        native=evaluation.model.config.image_size,
        curves={name: [figures[name] for figures in metrics] for name in TITLES},
        titles=TITLES,
        about=f"{ABOUT} Threshold {evaluation.threshold:.2f}.",
        samples=int(metrics[0]["samples"]),
        seconds=sum(figures["seconds"] for figures in metrics),
        provenance=evaluation.provenance,
    )


def image_size(job: Job) -> None:
    """The benchmark `phrasecut` at several sizes of the input, and their curve (after Fig. 5)."""
    config, model = job.config, job.model
    assert isinstance(config, SizeKeys)
    sizes = choose_sizes(config.image_sizes, native=model.config.image_size, patch_size=model.backbone.patch_size)
    evaluation = evaluation_of(job, phrasecut_data(job))
    curves = measure_image_sizes(evaluation, sizes, folder=job.folder, seed=config.seed)
    if job.processes.is_main:
        curves.write(job.folder)
        print(format_curves(curves))
