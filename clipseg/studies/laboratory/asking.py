"""Every image once through the backbone, and through the decoder once each distinct prompt that any question about it needs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from clipseg.data.phrase_tasks import PhraseTasks, ReaderOptions
from clipseg.data.sample import Batch
from clipseg.measure.figures import panel
from clipseg.network.preprocess import resize_masks, resize_probabilities
from clipseg.run.evaluation import Evaluation, answers
from clipseg.run.jobs import Job, evaluation_of, phrase_data
from clipseg.run.loading import evaluation_batches, with_left_out
from clipseg.run.workers import naming_worker_failures
from clipseg.studies.laboratory.results import CONTROL
from clipseg.studies.laboratory.statements import Statement, Statements, read_statements

EXAMPLES = 6  # of a page: one of each of the first images


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row to be measured of a task.

    Attributes:
        task: its place in the batch.
        kind: as in `WordResults`.
        phrase: as annotated.
        asked: what stands in its place.
        prompts: what is asked of the model: the phrase, or a control in its place, then what stands in its place, likewise.
        truth: what `asked` is true of, bool `[H, W]`; None where it is the task's own mask.
    """

    task: int
    kind: str
    phrase: str
    asked: str
    prompts: tuple[str, str]
    truth: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An example of a page: what was asked, and the JPEG strip of `figures.panel`."""

    kind: str
    phrase: str
    asked: str
    jpeg: bytes


Ask = Callable[[Batch, Statements, np.random.Generator], Sequence[Question]]
Score = Callable[[Tensor, Tensor, NDArray[np.bool_], NDArray[np.bool_], float], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The answers of all processes: rows of `WordResults`, examples, and the provenance with what was left out."""

    rows: list[dict[str, Any]]
    examples: list[Shown]
    seconds: float
    provenance: dict[str, Any]


def statements_of(job: Job, split: str) -> tuple[PhraseTasks, Statements]:
    """Return a split's reader, whole images, and what is said of them; of the mini data with its exact truth.

    Raises:
        ClipSegError: a layout without phrases, or a split that is not there or names one thing.
    """
    data = phrase_data(job, ReaderOptions(seed=job.config.seed), split=split)
    if job.config.data.root != "mini":
        return data, read_statements(job.root, split)
    from clipseg.studies.laboratory.drawn import DrawnStatements  # the drawn data are imported where they are met

    return data, read_statements(job.root, split, DrawnStatements)


@naming_worker_failures()
def ask_all(job: Job, split: str, ask: Ask, score: Score, *, first_images: int | None) -> Asked:
    """Ask every question about a split, and measure the answers.

    Args:
        job: says model, data, templates and threshold.
        split: of the data.
        ask: an image's batch and statements, and a generator of its own -> questions.
        score: the maps float32 `[S, S]` of both prompts, the truths bool `[S, S]` of phrase and asked, the threshold -> values.
        first_images: of the split; None: all.
    """
    data, known = statements_of(job, split)
    evaluation = evaluation_of(job, data)
    began = time.perf_counter()
    left_out: list[str] = []
    rows: list[dict[str, Any]] = []
    examples: list[Shown] = []
    for batch, questions, maps in _answered(evaluation, known, ask, left_out, first_images=first_images, seed=job.config.seed):
        size = (evaluation.model.config.image_size,) * 2
        truths = resize_masks(batch.masks, size).bool().cpu().numpy()
        for question in questions:
            before = truths[question.task]
            after = before if question.truth is None else _resized(question.truth, size)
            first, second = question.prompts
            values = score(maps[first], maps[second], before, after, evaluation.threshold)
            key, image = batch.keys[question.task], batch.image_keys[0]
            labels = {"key": key, "image_key": image, "kind": question.kind, "phrase": question.phrase, "asked": question.asked}
            rows.append(labels | dict(values) | {"pixels": batch.masks[question.task].numel()})
        meant = [question for question in questions if not question.kind.startswith(CONTROL)]
        if meant and len(examples) < EXAMPLES:
            examples.append(_shown(batch, meant[len(examples) % len(meant)], maps, evaluation.threshold))
    processes = job.processes
    return Asked(
        rows=processes.gather_lists(rows),
        examples=processes.gather_lists(examples)[:EXAMPLES],
        seconds=max(processes.gather(time.perf_counter() - began)),
        provenance=with_left_out({**job.origin, "split": split}, processes.gather_lists(left_out)),
    )


@torch.no_grad()
def _answered(
    evaluation: Evaluation, known: Statements, ask: Ask, left_out: list[str], *, first_images: int | None, seed: int
) -> Iterator[tuple[Batch, Sequence[Question], dict[str, Tensor]]]:
    model, items = evaluation.model.eval(), range(len(evaluation.data))[:first_images]
    device = next(model.decoder.parameters()).device
    batches = evaluation_batches(
        evaluation.data, items, processes=evaluation.processes, loader=evaluation.loader, left_out=left_out, device=device
    )
    total = -(-len(items) // evaluation.processes.world_size)
    shown = evaluation.processes.is_main
    for batch in tqdm(batches, total=total, unit="image", desc="asking", disable=None if shown else True, leave=False):
        # Of the image alone, so that any number of processes asks the same.
        generator = np.random.default_rng([seed, *batch.image_keys[0].encode()])
        questions = ask(batch, known, generator)
        prompts = list(dict.fromkeys(prompt for question in questions for prompt in question.prompts))
        maps: dict[str, Tensor] = {}
        if prompts:
            # One seed for all: the same prompt stands in the same template.
            condition = evaluation.condition.texts(model, prompts, [seed] * len(prompts))
            # Prompts that CLIP embeds alike have one map to the last bit, which depends on what is decoded beside it.
            distinct, place = condition.unique(dim=0, return_inverse=True)
            index = torch.zeros(len(distinct), dtype=torch.int64, device=device)
            (answer,) = answers(model, batch.images, [distinct], index)
            maps = {prompt: answer[row] for prompt, row in zip(prompts, place.tolist(), strict=True)}
        yield batch, questions, maps


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return resize_masks([torch.from_numpy(mask).byte()], size)[0].bool().numpy()


def _shown(batch: Batch, question: Question, maps: Mapping[str, Tensor], threshold: float) -> Shown:
    """The photo, what is asked for, where the model finds it, and the cut."""
    photo = batch.images[0].permute(1, 2, 0).cpu().numpy()
    truth = batch.masks[question.task].cpu().numpy() if question.truth is None else question.truth.astype(np.uint8)
    height, width = photo.shape[:2]
    probability = resize_probabilities(maps[question.prompts[1]][None], (height, width))[0].cpu().numpy()
    strip = panel(photo, truth, probability, threshold=threshold)
    return Shown(kind=question.kind, phrase=question.phrase, asked=question.asked, jpeg=strip)


def mask_iou(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    """Return the IoU of two masks; nothing and nothing are the same."""
    union = np.count_nonzero(one | two)
    return np.count_nonzero(one & two) / union if union else 1.0


def statement(batch: Batch, known: Statements, task: int) -> Statement:
    """Return what a task of the batch says."""
    return known.of_task[batch.keys[task]]
