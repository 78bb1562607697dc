"""Evaluation: every image once through the backbone, every phrase of it through the decoder; out come counts."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clipseg.data.phrase_tasks import PhraseTasks
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import Batch, Reader
from clipseg.data.subsets import SUBSETS
from clipseg.errors import ClipSegError
from clipseg.files import atomic_write
from clipseg.measure.metrics import SampleCounts, count, official_counts, sample_iou
from clipseg.measure.results import Results
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import Resize, prepare_images, resize_masks, resize_probabilities
from clipseg.prompts.text import AbsentPhrases
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.loading import IN_PROCESS, evaluation_batches, with_left_out
from clipseg.run.settings import LoaderSettings
from clipseg.run.workers import naming_worker_failures

if TYPE_CHECKING:
    from clipseg.measure.intensity_columns import IntensityColumns
    from clipseg.measure.report import GalleryItem

ALONE = Processes()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model on a data set, under one protocol.

    Attributes:
        model: in whatever state of training. Phrases that it was calibrated for have their temperature, and their threshold
            where each is cut once: for figures at the original size, saved predictions and pictures.
        data: made with `training=False`: an item is one whole image with all its tasks.
        condition: how the targets are described, and images brought to the model's size.
        threshold: of the tables' figures and the binary predictions; one of 0.02, 0.04 … 0.98.
        provenance: what the results shall say of their origin.
        processes: who shares the work.
        loader: how images are read; those left out are listed in the provenance of the results, and counted in their metrics.
        intensity_tests: also test how the photos' gray values change at the boundaries of true and predicted masks.
        absent: gives each image one more prompt, of something that is not there.
    """

    model: CLIPSeg
    data: Reader
    condition: Conditioner
    threshold: float
    provenance: Mapping[str, Any]
    processes: Processes
    loader: LoaderSettings
    intensity_tests: bool = False
    absent: AbsentPhrases | None = None

    @naming_worker_failures()
    def run(self, *, images: int | None = None, save_predictions: Path | None = None, progress: str | None = None) -> Results:
        """Measure every task once; on every process the results of all.

        Args:
            images: only the first so many images of the data set; None: all.
            save_predictions: a folder for one black-and-white PNG a task, at the image's own size, as PhraseCut's own
                evaluator reads them.
            progress: label of a progress bar on standard error; None: no bar.
        """
        began = time.perf_counter()
        items = range(len(self.data))[:images]
        shown = progress is not None and self.processes.is_main
        parts: list[dict[str, Any]] = []
        left_out: list[str] = []
        with tqdm(total=len(items), unit="image", desc=progress, disable=None if shown else True, leave=False) as bar:
            for batch, probabilities in predictions(
                self.model,
                self.data,
                self.condition,
                items,
                processes=self.processes,
                loader=self.loader,
                left_out=left_out,
                absent=self.absent,
            ):
                parts.append(self.measure(batch, probabilities, save_predictions))
                bar.update(self.processes.world_size)
        return self.collect(parts, left_out, seconds=time.perf_counter() - began)

    def collect(self, parts: Sequence[dict[str, Any]], left_out: Sequence[str] = (), *, seconds: float) -> Results:
        """The results of all processes from what `measure` gave in each; the slowest process's seconds count.

        Args:
            parts: of `measure`.
            left_out: a line for each image that could not be read.
            seconds: this process took.
        """
        rows, left_out = self.processes.gather_lists(list(parts)), self.processes.gather_lists(list(left_out))
        if not rows:
            raise ClipSegError(f"none of {len(left_out)} images can be read: {left_out[0]}")
        columns: dict[str, Any] = {name: np.concatenate([row[name] for row in rows]) for name in rows[0] if name not in _JOINED}
        return Results(
            **columns,
            counts=SampleCounts.concatenate(row["counts"] for row in rows),
            subsets=_memberships([subsets for row in rows for subsets in row["subsets"]]),
            presence=None if self.absent is None else np.concatenate([row["presence"] for row in rows]),
            intensity=rows[0]["intensity"] and rows[0]["intensity"].concatenate([row["intensity"] for row in rows]),
            threshold=self.threshold,
            seconds=max(self.processes.gather(seconds)),
            provenance=with_left_out(self.provenance, left_out) | _missing_subsets(self.data),
        )

    def measure(self, batch: Batch, probabilities: Tensor, save_predictions: Path | None = None) -> dict[str, Any]:
        """The columns of `Results` for the tasks of one image, from their probabilities `[N, S, S]`; arguments as in `run`.

        One map more is the answer to a phrase that is absent.
        """
        official, own = [], []
        probabilities, gone = probabilities.split([len(batch), len(probabilities) - len(batch)])
        image_index = batch.image_index.tolist()
        cuts = map(self._cut, batch.phrases)
        tasks = zip(batch.keys, image_index, batch.masks, batch.official, probabilities, cuts, strict=True)
        for key, image, mask, official_mask, probability, cut in tasks:
            own.append(at_own_size := self._at_own_size(probability, mask))
            official.append(official_counts(at_own_size, official_mask, cut, valid=batch.valid[image] if batch.valid else None))
            if save_predictions is not None:
                _write_prediction(save_predictions, key, at_own_size > cut)
        intersections, unions = np.array(official, dtype=np.int64).T
        # Pascal-5i was counted at the photos' own size, all others at the model's.
        counted = torch.stack(own) if self.condition.resize == "canvas" else probabilities
        size = (counted.shape[1], counted.shape[2])
        return {
            "key": np.array(batch.keys),
            "image_key": np.array(batch.image_keys)[image_index],
            "phrase": np.array(batch.phrases),
            "group": np.array(batch.groups),
            "height": np.array([mask.shape[0] for mask in batch.masks], dtype=np.int32),
            "width": np.array([mask.shape[1] for mask in batch.masks], dtype=np.int32),
            "presence": _presence(probabilities, gone) if self.absent else None,
            "counts": count(counted, resize_masks(batch.masks, size), self._valid(batch, size)),
            "official_intersection": intersections,
            "official_union": unions,
            "subsets": batch.subsets,
            "intensity": _intensity(batch, [probability > self.threshold for probability in own])
            if self.intensity_tests
            else None,
        }

    def _cut(self, phrase: str) -> float:
        """The threshold of a phrase's masks: its own, where the model was calibrated for it."""
        return self.model.calibration[phrase].threshold if phrase in self.model.calibration else self.threshold

    def _at_own_size(self, probability: Tensor, mask: Tensor) -> Tensor:
        return resize_probabilities(probability[None], (mask.shape[0], mask.shape[1]), resize=self.condition.resize)[0]

    def _valid(self, batch: Batch, size: tuple[int, int]) -> Tensor | None:
        """Which pixels of each task count, uint8 `[N, *size]`: what the annotators ignored does not; None: all."""
        return resize_masks(batch.valid, size)[batch.image_index] if batch.valid else None

    def render(self, keys: Sequence[str], results: Results) -> "Iterator[GalleryItem]":
        """Pictures of the given samples, in the data set's order: photo, truth, probabilities and their cut."""
        from clipseg.measure.figures import panel
        from clipseg.measure.report import GalleryItem

        iou_of = dict(zip(results.key.tolist(), sample_iou(results.cut(), self.threshold).tolist(), strict=True))
        image_of = dict(zip(results.key.tolist(), results.image_key.tolist(), strict=True))
        item_of = {str(image_id): item for item, image_id in enumerate(self.data.image_ids.tolist())}
        items = sorted({item_of[image_of[key]] for key in keys})
        for batch, probabilities in predictions(self.model, self.data, self.condition, items):
            for position in (position for position, key in enumerate(batch.keys) if key in keys):
                key, mask = batch.keys[position], batch.masks[position]
                image = batch.images[int(batch.image_index[position])].permute(1, 2, 0).cpu().numpy()
                probability = self._at_own_size(probabilities[position], mask).cpu().numpy()
                strip = panel(image, mask.cpu().numpy(), probability, threshold=self._cut(batch.phrases[position]))
                yield GalleryItem(key=key, phrase=batch.phrases[position], iou=iou_of[key], jpeg=strip)

    def write(self, folder: Path, results: Results, *, seed: int) -> None:
        """The results, their figures and `report.html` into `folder`; `seed` draws the report's random samples."""
        # Pages and pictures are imported when they are made.
        from clipseg.measure.failures import pick_failures
        from clipseg.measure.report import pick_gallery, write_report

        results.save(folder)
        picked = pick_gallery(results, 8, seed) | pick_failures(results, 4, seed)
        shown = {item.key: item for item in self.render([key for keys in picked.values() for key in keys], results)}
        write_report(folder, results, gallery={title: [shown[key] for key in keys] for title, keys in picked.items()})


_JOINED = ("counts", "subsets", "intensity", "presence")


def _presence(present: Tensor, gone: Tensor) -> NDArray[np.float32]:
    """The largest probability of each task, and that of what is absent beside the first: float32 `[N, 2]`."""
    peaks = torch.full((len(present), 2), torch.nan)
    peaks[:, 0] = present.flatten(1).amax(dim=1)
    peaks[: len(gone), 1] = gone.flatten(1).amax(dim=1)
    return peaks.numpy()


def _intensity(batch: Batch, predicted: Sequence[Tensor]) -> "IntensityColumns":
    """The tests of the true and the predicted mask of each task."""
    from clipseg.measure.intensity_columns import IntensityColumns  # imported where they are asked for

    images = [image.permute(1, 2, 0).cpu().numpy() for image in batch.images]
    masks = [[mask.cpu().numpy() for mask in pair] for pair in zip(batch.masks, predicted, strict=True)]
    return IntensityColumns.measured(images, batch.image_index.tolist(), masks)


def _memberships(subsets: Sequence[tuple[str, ...]]) -> dict[str, NDArray[np.bool_]]:
    """Which samples belong to each subset that has any: the columns of `Results`."""
    return {name: np.array([name in own for own in subsets]) for name in SUBSETS if any(name in own for own in subsets)}


def _missing_subsets(data: Reader) -> dict[str, Any]:
    """Return what the provenance says of subsets that could not be told."""
    missing = data.missing_subsets if isinstance(data, PhraseCut) else {}
    return {"missing_subsets": missing} if missing else {}


def absent_phrases(data: Reader) -> AbsentPhrases | None:
    """What to ask of the images of phrases that is not there; None of classes, and of prompts that are pictures."""
    if not isinstance(data, PhraseTasks) or data.options.visual_support:
        return None
    return AbsentPhrases(data.asked_phrases)


@torch.no_grad()
def predictions(
    model: CLIPSeg,
    data: Reader,
    condition: Conditioner,
    items: Sequence[int],
    *,
    processes: Processes = ALONE,
    loader: LoaderSettings = IN_PROCESS,
    left_out: list[str] | None = None,
    absent: AbsentPhrases | None = None,
) -> Iterator[tuple[Batch, Tensor]]:
    """A process's share of `items`: each image's batch and its probabilities, float32 `[N, S, S]` at the model's size.

    Args:
        loader: how images are read.
        left_out: gets a line for each that cannot be read, where `loader` leaves them out.
        absent: gives each image one more prompt, whose map is the last.
    """
    model.eval()
    device = next(model.decoder.parameters()).device
    noted = [] if left_out is None else left_out
    for batch in evaluation_batches(data, items, processes=processes, loader=loader, left_out=noted, device=device):
        conditions, index = condition(model, batch), batch.image_index
        gone = absent.of(batch.phrases, batch.seeds[0]) if absent else None
        if gone is not None:
            conditions = torch.cat([conditions, condition.texts(model, [gone], batch.seeds[:1])])
            index = torch.cat([index, index[:1]])
        (maps,) = answers(model, batch.images, [conditions], index, resize=condition.resize)
        for row, phrase in enumerate(batch.phrases):
            if phrase in model.calibration:
                maps[row] = model.calibration[phrase](maps[row])
        yield batch, maps


def answers(
    model: CLIPSeg,
    images: Sequence[Tensor],
    conditions: Iterable[Tensor],
    image_index: Tensor,
    *,
    resize: Resize = "squash",
) -> Iterator[Tensor]:
    """Pass B images through the backbone once, and yield the answer to each of several ways to ask N prompts about them.

    Args:
        model: in evaluation mode.
        images: uint8 RGB `[3, H_b, W_b]`, on the model's device.
        conditions: each float `[N, E]`.
        image_index: int64 `[N]`, the image of each prompt.
        resize: how images come to the model's size S.

    Yields:
        probabilities, float32 `[N, S, S]`.
    """
    size = (model.config.image_size, model.config.image_size)
    activations = model.activations(prepare_images(images, size, resize=resize))
    for condition in conditions:
        yield torch.cat(list(model.probabilities(activations, condition, image_index)))


def _write_prediction(folder: Path, key: str, prediction: Tensor) -> None:
    task_id = key.split("/", 1)[1]
    if not task_id.isprintable() or {PurePosixPath(task_id).name, PureWindowsPath(task_id).name} != {task_id} or not task_id:
        raise ClipSegError(f"task_id {task_id!r} is no file name; predictions are saved as <task_id>.png")
    with atomic_write(folder / f"{task_id}.png") as file:
        Image.fromarray(prediction.byte().mul(255).cpu().numpy()).save(file, format="PNG")
