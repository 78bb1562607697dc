"""`benchmark=boundaries`: how well do the edges of masks agree with the annotated ones, at the photo's own size?"""

import time

import numpy as np
from tqdm import tqdm

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.subsets import size_subset
from clipseg.measure.statistics.boundaries import TOLERANCES, Mask, boundary_iou, surface_distance
from clipseg.network.preprocess import resize_probabilities
from clipseg.run.evaluation import predictions
from clipseg.run.jobs import Job, evaluation_of, phrase_data
from clipseg.run.loading import with_left_out
from clipseg.run.workers import naming_worker_failures
from clipseg.studies.boundaries.numbers import BoundaryResults, format_boundaries, write_boundaries_report


@naming_worker_failures()
def measure_boundaries(job: Job) -> BoundaryResults:
    """Measure every task once; on every process the results of all."""
    began = time.perf_counter()
    evaluation = evaluation_of(job, phrase_data(job, ReaderOptions(seed=job.config.seed)))
    items, left_out = range(len(evaluation.data)), list[str]()
    answered = predictions(
        evaluation.model,
        evaluation.data,
        evaluation.condition,
        items,
        processes=job.processes,
        loader=evaluation.loader,
        left_out=left_out,
    )
    total = -(-len(items) // job.processes.world_size)
    rows = []
    for batch, maps in tqdm(answered, total=total, unit="image", disable=None if job.processes.is_main else True, leave=False):
        for task, (key, mask) in enumerate(zip(batch.keys, batch.masks, strict=True)):
            height, width = mask.shape
            found = resize_probabilities(maps[task][None], (height, width))[0].gt(evaluation.threshold).cpu().numpy()
            truth = mask.bool().cpu().numpy()
            rows.append((key, batch.image_keys[0], size_subset(float(truth.mean())), scores(truth, found)))
    return BoundaryResults.of_rows(
        job.processes.gather_lists(rows),
        threshold=evaluation.threshold,
        seconds=max(job.processes.gather(time.perf_counter() - began)),
        provenance=with_left_out(job.origin, job.processes.gather_lists(left_out)),
    )


def scores(truth: Mask, found: Mask) -> tuple[float, ...]:
    """Return the figures of `numbers.FIGURES` of two masks, bool `[H, W]`."""
    union = np.count_nonzero(truth | found)
    iou = np.count_nonzero(truth & found) / union if union else 1.0
    return iou, boundary_iou(truth, found), *(surface_distance(truth, found, tolerance=pixels) for pixels in TOLERANCES)


def boundaries(job: Job) -> None:
    """Measure boundary IoU and surface distance of every phrase's mask at the photo's own size."""
    results = measure_boundaries(job)
    if job.processes.is_main:
        results.save(job.folder)
        write_boundaries_report(job.folder, results, seed=job.config.seed)
        print(format_boundaries(results, seed=job.config.seed))
