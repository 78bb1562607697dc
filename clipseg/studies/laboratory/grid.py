"""`benchmark=prompt_grid`: how much text, in which template, beside which picture? One pass of the backbone for all of it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from clipseg.data.phrase_tasks import visual_evaluation
from clipseg.data.sample import Batch
from clipseg.measure.metrics import SampleCounts, count, sample_iou
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import resize_masks
from clipseg.run.conditioning import Conditioner
from clipseg.run.evaluation import answers
from clipseg.run.jobs import Job, phrase_data
from clipseg.run.loading import evaluation_batches, with_left_out
from clipseg.run.settings import PromptSettings
from clipseg.run.workers import naming_worker_failures
from clipseg.studies.laboratory.grid_numbers import Cell, GridResults, cells_of
from clipseg.studies.laboratory.grid_page import finish
from clipseg.studies.laboratory.settings import GridKeys, LaboratoryKeys

WEIGHTS = tuple(tenth / 10 for tenth in range(11))
TEMPLATES, VARIANTS = ("plain", "extended"), ("crop_blur_intensity10", "crop")


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """The conditions of a batch in each cell of a grid.

    Attributes:
        cells: of the grid.
        texts: template -> conditioner.
        pictures: variant -> conditioner.
    """

    cells: Sequence[Cell]
    texts: dict[str, Conditioner]
    pictures: dict[str, Conditioner]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> "Mixer":
        """Make one; raises `ClipSegError` for templates or variants that do not exist."""
        templates = {cell.template for cell in cells if cell.template}
        variants = {cell.variant for cell in cells if cell.variant}
        return cls(
            cells=cells,
            texts={name: Conditioner(PromptSettings(templates=name, ensemble=True)) for name in sorted(templates)},
            pictures={name: Conditioner(PromptSettings(visual_prompt=name)) for name in sorted(variants)},
        )

    def conditions(self, model: CLIPSeg, batch: Batch) -> Iterator[Tensor]:
        """Yield a float `[M, E]` a cell, for the M tasks that have a picture; each text and picture is embedded once."""
        rows = batch.support_index.tolist()
        phrases, seeds = [batch.phrases[row] for row in rows], [batch.seeds[row] for row in rows]
        texts = {name: condition.texts(model, phrases, seeds) for name, condition in self.texts.items()}
        pictures = {name: condition.visual(model, batch) for name, condition in self.pictures.items()}
        for cell in self.cells:
            if cell.variant is None:
                yield texts[cell.template or ""]
            elif cell.template is None:
                yield pictures[cell.variant]
            else:
                yield cell.weight * texts[cell.template] + (1 - cell.weight) * pictures[cell.variant]


@naming_worker_failures()
@torch.no_grad()
def measure_grid(job: Job, cells: Sequence[Cell], *, first_images: int | None) -> GridResults:
    """Measure every task that another sample can show, in each cell; on every process the results of all."""
    config, model, processes = job.config, job.model.eval(), job.processes
    # What a picture shows is another sample's, never the task's own.
    options = visual_evaluation(seed=config.seed, protocol="paper")
    data = phrase_data(job, options)
    mixer = Mixer.of(cells)
    began = time.perf_counter()
    items, size = range(len(data))[:first_images], (model.config.image_size,) * 2
    device, left_out = next(model.decoder.parameters()).device, list[str]()
    batches = evaluation_batches(data, items, processes=processes, loader=config.data, left_out=left_out, device=device)
    rows: list[dict[str, Any]] = []
    totals: list[SampleCounts] | None = None
    total = -(-len(items) // processes.world_size)
    for batch in tqdm(
        batches, total=total, unit="image", desc="mixing", disable=None if processes.is_main else True, leave=False
    ):
        chosen = batch.support_index
        truths = resize_masks(batch.masks, size)[chosen]
        maps = answers(model, batch.images, mixer.conditions(model, batch), batch.image_index[chosen])
        counts = [count(probabilities, truths) for probabilities in maps]
        if len(chosen):
            iou = np.stack([sample_iou(each, config.threshold) for each in counts], axis=1)
            keys = [batch.keys[row] for row in chosen.tolist()]
            rows += [{"key": key, "image_key": batch.image_keys[0], "iou": row} for key, row in zip(keys, iou, strict=True)]
            pooled = [each.pooled() for each in counts]
            totals = (
                pooled
                if totals is None
                else [SampleCounts.concatenate(pair).pooled() for pair in zip(totals, pooled, strict=True)]
            )
    return GridResults.of_rows(
        processes.gather_lists(rows),
        cells,
        [SampleCounts.concatenate(parts).pooled() for parts in zip(*filter(None, processes.gather(totals)), strict=True)],
        threshold=config.threshold,
        seconds=max(processes.gather(time.perf_counter() - began)),
        provenance=with_left_out(job.origin, processes.gather_lists(left_out)),
    )


def prompt_grid(job: Job) -> None:
    """Measure text weights × templates × pictures on one trained run, and say which cell to use."""
    config = job.config
    assert isinstance(config, GridKeys)
    assert isinstance(config, LaboratoryKeys)
    cells = cells_of(config.grid_weights or WEIGHTS, config.grid_templates or TEMPLATES, config.grid_variants or VARIANTS)
    results = measure_grid(job, cells, first_images=config.first_images)
    if job.processes.is_main:
        finish(job.folder, results, seed=config.seed)
