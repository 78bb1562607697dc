"""Other words around the same phrase (the paper's Fig. 7): every image once through the backbone, its phrases in each form."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from clipseg.errors import ClipSegError
from clipseg.measure.results import Results
from clipseg.prompts.text import TEMPLATES
from clipseg.run.conditioning import Conditioner
from clipseg.run.evaluation import Evaluation, answers
from clipseg.run.jobs import Job, evaluation_of, phrasecut_data
from clipseg.run.loading import evaluation_batches
from clipseg.run.settings import PromptSettings
from clipseg.run.workers import naming_worker_failures
from clipseg.studies.prompt_forms.numbers import (
    BARE,
    FormComparison,
    compare_forms,
    format_forms,
    write_forms_report,
)


def _name(template: str) -> str:
    return template.replace("{}", "").strip(" .").replace(" ", "_") or "full_stop"


# The phrase as it is; each template of PhraseCut+ alone; and the mean embedding over each set (docs/paper.md, Sec. 2).
FORMS: Mapping[str, PromptSettings] = {
    BARE: PromptSettings(templates="plain"),
    **{_name(template): PromptSettings(templates=template) for template in TEMPLATES["extended"]},
    **{f"mean_of_{name}": PromptSettings(templates=name, ensemble=True) for name in ("shuffled", "extended", "imagenet")},
}


@dataclass(frozen=True, kw_only=True)
class PromptForms:
    """An evaluation in several forms of the prompt, side by side.

    Attributes:
        evaluation: model, data and protocol; its own way to describe targets is not used.
        forms: name -> how targets are described; `bare`, which the others are compared with, is among them.
    """

    evaluation: Evaluation
    forms: Mapping[str, PromptSettings]

    @naming_worker_failures()
    @torch.no_grad()
    def run(self, *, progress: str | None = None) -> dict[str, Results]:
        """Measure every task once in each form; on every process the results of all, in the order of the forms."""
        began = time.perf_counter()
        measured = self.evaluation
        model, items = measured.model.eval(), range(len(measured.data))
        conditions = {name: Conditioner(settings) for name, settings in self.forms.items()}
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self.forms}
        device = next(model.decoder.parameters()).device
        left_out: list[str] = []
        batches = evaluation_batches(
            measured.data, items, processes=measured.processes, loader=measured.loader, left_out=left_out, device=device
        )
        shown = progress is not None and measured.processes.is_main
        total = -(-len(items) // measured.processes.world_size)
        for batch in tqdm(batches, total=total, unit="image", desc=progress, disable=None if shown else True, leave=False):
            asked = (condition(model, batch) for condition in conditions.values())
            maps = answers(model, batch.images, asked, batch.image_index)
            for name, probabilities in zip(conditions, maps, strict=True):
                rows[name].append(measured.measure(batch, probabilities))
        return {
            name: replace(measured, provenance=dict(measured.provenance) | _origin(name, conditions[name])).collect(
                rows[name], left_out, seconds=time.perf_counter() - began
            )
            for name in self.forms
        }

    def write(self, folder: Path, comparison: FormComparison) -> None:
        """Write a results folder a form, and those of their comparison with a page."""
        for name, results in comparison.forms.items():
            results.save(folder / name)
        comparison.save(folder)
        write_forms_report(folder, comparison)


def _origin(name: str, condition: Conditioner) -> dict[str, Any]:
    return {"form": name, "templates": list(condition.templates), "mean_embedding": condition.ensemble}


def prompt_forms(job: Job) -> None:
    """Measure what other words around the same phrases do to the masks (Fig. 7)."""
    if job.config.prompt.templates != "plain" or job.config.prompt.ensemble:
        raise ClipSegError("benchmark=prompt_forms compares all forms; leave prompt.templates and prompt.ensemble out")
    study = PromptForms(evaluation=evaluation_of(job, phrasecut_data(job)), forms=FORMS)
    forms = study.run(progress=f"evaluating {job.config.split}")
    if job.processes.is_main:
        comparison = compare_forms(forms, provenance=study.evaluation.provenance, seed=job.config.seed)
        study.write(job.folder, comparison)
        print(format_forms(comparison))
