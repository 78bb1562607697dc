"""Generalised zero-shot segmentation: every class name asks every image, and the largest answer wins each pixel (Tab. 4)."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from clipseg.data.classes import PASCAL_CLASSES, VOC_NAMES, unseen_classes
from clipseg.data.readers.pascal import LabelledImage, PascalZeroShot
from clipseg.data.sampling import shard
from clipseg.files import write_json
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import normalise, resize_masks
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.jobs import Job
from clipseg.run.loading import read_each, with_left_out
from clipseg.run.settings import LoaderSettings, PromptSettings
from clipseg.studies.zero_shot.label_maps import LabelMaps, label_strip, pick_images
from clipseg.studies.zero_shot.numbers import confusion, image_miou, predict_with_prompt, predict_with_threshold
from clipseg.studies.zero_shot.results import MulticlassResults, format_multiclass, write_multiclass_report
from clipseg.studies.zero_shot.settings import ZeroShotKeys

NAMES = ("background", *PASCAL_CLASSES)
PROMPTS = ("background", "airplane", *VOC_NAMES[1:])  # as released
SHOWN = 6  # images of each kind in the report


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """A model on images with label maps.

    Attributes:
        model: its text prompts are "background" and the twenty class names, as `PROMPTS` spells them.
        data: images and label maps are squashed to the model's size.
        prompt: the templates around the names.
        seed: draws a name's template where there are several, and the random images of the report.
        background_threshold: background is where no class is above it; None: where its own prompt, times 3, is largest.
        unseen: the classes left out of training.
        provenance: what the results shall say of their origin.
        processes: who shares the work.
        loader: what becomes of an image that cannot be read; those left out are listed in the provenance of the results.
    """

    model: CLIPSeg
    data: PascalZeroShot
    prompt: PromptSettings
    seed: int
    background_threshold: float | None
    unseen: Sequence[str]
    provenance: Mapping[str, Any]
    processes: Processes
    loader: LoaderSettings

    def run(self) -> tuple[MulticlassResults, dict[str, float]]:
        """Which class was taken for which, counted over all images, and `image_miou` of each image with a counted pixel.

        On every process those of all.
        """
        began = time.perf_counter()
        matrix = np.zeros((len(NAMES), len(NAMES)), dtype=np.int64)
        miou: dict[str, float] = {}
        items = shard(len(self.data), self.processes.rank, self.processes.world_size)
        shown = tqdm(items, unit="image", disable=None if self.processes.is_main else True, leave=False)
        left_out: list[str] = []
        for labelled, predicted in self._predictions(shown, left_out):
            truth = resize_masks([labelled.labels], (predicted.shape[0], predicted.shape[1]))[0]
            counts = confusion(predicted, truth, classes=len(PASCAL_CLASSES))
            matrix += counts
            if counts.any():
                miou[labelled.image_key] = image_miou(counts)
        left_out = self.processes.gather_lists(left_out)
        results = MulticlassResults(
            matrix=sum(self.processes.gather(matrix)),
            names=NAMES,
            unseen=tuple(self.unseen),
            images=len(self.data) - len(left_out),
            seconds=max(self.processes.gather(time.perf_counter() - began)),
            provenance=with_left_out(self.provenance, left_out),
        )
        return results, {key: value for part in self.processes.gather(miou) for key, value in part.items()}

    @torch.no_grad()
    def _predictions(self, items: Sequence[int], left_out: list[str]) -> Iterator[tuple[LabelledImage, NDArray[np.uint8]]]:
        """Images, and the label of each pixel at the model's size, uint8 `[S, S]`."""
        self.model.eval()
        size = (self.model.config.image_size, self.model.config.image_size)
        conditions = Conditioner(self.prompt).texts(self.model, PROMPTS, [self.seed] * len(PROMPTS))
        for labelled in read_each(self.data, items, loader=self.loader, left_out=left_out):
            one_image = torch.zeros(len(conditions), dtype=torch.int64, device=conditions.device)
            # Another resampling than everywhere else, as released: of the normalised photo, by half-pixel centres.
            photo = normalise(labelled.image.to(conditions.device)[None] / 255)
            squashed = F.interpolate(photo, size=size, mode="bilinear", align_corners=False)
            activations = self.model.activations(squashed)
            probabilities = torch.cat(list(self.model.probabilities(activations, conditions, one_image)))
            if self.background_threshold is None:
                yield labelled, predict_with_prompt(probabilities)
            else:
                yield labelled, predict_with_threshold(probabilities[1:], threshold=self.background_threshold)

    def render(self, miou: Mapping[str, float]) -> Iterator[LabelMaps]:
        """Pictures of the images that `miou` holds by their key, in the data set's order, at their own size."""
        items = [item for item, key in enumerate(self.data.image_ids.tolist()) if key in miou]
        for labelled, predicted in self._predictions(items, []):
            truth = labelled.labels
            own_size = (truth.shape[0], truth.shape[1])
            found = resize_masks([torch.from_numpy(predicted)], own_size)[0].numpy()
            strip = label_strip(labelled.image.permute(1, 2, 0).numpy(), truth.numpy(), found)
            labels = tuple(np.union1d(truth, found).tolist())
            key = labelled.image_key
            yield LabelMaps(key=key, miou=miou[key], jpeg=strip, labels=labels)

    def write(self, folder: Path, results: MulticlassResults, miou: Mapping[str, float]) -> None:
        """The results, `image_miou.json` and `report.html` into `folder`."""
        results.save(folder)
        write_json(folder / "image_miou.json", dict(miou))
        picked = pick_images(miou, SHOWN, self.seed)
        shown = {maps.key: maps for maps in self.render({key: miou[key] for keys in picked.values() for key in keys})}
        gallery = {title: [shown[key] for key in keys] for title, keys in picked.items()}
        write_multiclass_report(folder, results, gallery=gallery)


def pascal_zeroshot(job: Job) -> None:
    """Which of the twenty classes of Pascal VOC 2012 each pixel is, some of them unseen in training (Tab. 4)."""
    config = job.config
    assert isinstance(config, ZeroShotKeys)
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
        loader=config.data,
    )
    results, miou = evaluation.run()
    if job.processes.is_main:
        evaluation.write(job.folder, results, miou)
        print(format_multiclass(results))
