"""The study of visual prompts (Tab. 2): what does showing CLIP an object do for the probability of the object's name?

Every object is embedded as it is and by each variant; its name competes with those of all objects in its image. Only the
backbone takes part, a decoder does not.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from clipseg.data.layout import annotation_files
from clipseg.data.phrasecut import PhraseCut
from clipseg.network.attention_mask import visible_tokens
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.preprocess import MEAN, STD, normalise, resize_images, resize_objects
from clipseg.prompts.attention import ATTENTION_VARIANTS, ORIGINAL, choose_variants, computed_as
from clipseg.prompts.text import fill
from clipseg.prompts.visual import VARIANTS, darken_background, engineer
from clipseg.run.conditioning import embed_prompt_images
from clipseg.run.distributed import Processes
from clipseg.run.jobs import Job
from clipseg.run.loading import IN_PROCESS, read_each, with_left_out
from clipseg.run.settings import EvaluationData, LoaderSettings
from clipseg.studies.visual_prompts.lvis_pairs import LVISPairs
from clipseg.studies.visual_prompts.numbers import PromptDeltas, format_deltas
from clipseg.studies.visual_prompts.objects import NamedObject, ObjectSource, PhraseCutObjects
from clipseg.studies.visual_prompts.page import Picture, Sheet, write_prompt_report
from clipseg.studies.visual_prompts.settings import VisualPromptKeys

TEMPLATE = "a photo of a {}"
BATCH = 32  # objects, as released: with masks that are mixed up in it, it decides the figures
SIDE = 352  # at which objects are engineered, in pixels
SHEETS = 6  # objects shown in the report


def object_source(root: Path, *, split: str, settings: EvaluationData) -> ObjectSource:
    """The objects of a data root: LVIS by the authors' pairs where its annotations are there, else PhraseCut's layout."""
    if annotation_files(root, "lvis_v1_"):
        return LVISPairs(root, split=split, allow_missing=settings.allow_missing)
    return PhraseCutObjects(PhraseCut(root, split=split, leniency=settings))


class PromptStudy:
    """A CLIP on a source of objects.

    Args:
        backbone: the CLIP that is studied.
        source: images with named objects.
        variants: of `prompts.attention.ALL_VARIANTS`.
        image_size: side of what CLIP sees, in pixels. None, as released: its native size, 224 for the paper's, but `SIDE` for
            attention masks.
        protocol: whether Tab. 2's rows are computed as they were, or as they are called.

    Objects are engineered at `SIDE`, or the nearest side that the patch size divides, then resampled.
    """

    def __init__(
        self,
        backbone: CLIPBackbone,
        source: ObjectSource,
        *,
        variants: Sequence[str],
        image_size: int | None = None,
        protocol: str = "released",
    ):
        self.backbone = backbone
        self.source = source
        self.variants = tuple(variants)
        self._rows = [(name, computed_as(name, protocol)) for name in (ORIGINAL, *variants)]
        self.patch_size: int = backbone.clip.visual.patch_size[0]  # not that of an image tower beside it
        self.side = self.patch_size * round(SIDE / self.patch_size)
        self.size: int = backbone.clip.visual.image_size[0] if image_size is None else image_size
        self.masked_size = self.side if image_size is None else image_size
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def run(
        self,
        *,
        provenance: Mapping[str, Any],
        processes: Processes,
        loader: LoaderSettings = IN_PROCESS,
        progress: bool = False,
    ) -> PromptDeltas:
        """Measure every object once; on every process the results of all.

        All processes read all objects, so that the batches do not depend on their number.

        Args:
            provenance: what the results shall say of their origin; images left out are added.
            processes: who shares the work.
            loader: what becomes of an image that cannot be read.
            progress: show a progress bar.
        """
        began = time.perf_counter()
        items = range(len(self.source))
        shown = tqdm(items, unit="image", disable=None if progress and processes.is_main else True, leave=False)
        left_out: list[str] = []
        objects = (thing for things in read_each(self.source, shown, loader=loader, left_out=left_out) for thing in things)
        own = islice(_batches(objects, BATCH), processes.rank, None, processes.world_size)
        rows = processes.gather_lists([row for batch in own for row in self._measure(batch)])
        keys, image_keys, names, choices, probabilities = zip(*rows, strict=True) if rows else ((),) * 5
        return PromptDeltas(
            key=np.array(keys),
            image_key=np.array(image_keys),
            name=np.array(names),
            choices=np.array(choices, dtype=np.int64),
            original=np.array([row[0] for row in probabilities]),
            variants=self.variants,
            engineered=np.array([row[1:] for row in probabilities]),
            seconds=max(processes.gather(time.perf_counter() - began)),
            provenance=with_left_out(provenance, left_out),
        )

    def _measure(self, objects: Sequence[NamedObject]) -> Iterator[tuple[str, str, str, int, list[float]]]:
        """For each object key, image, name, number of names, and its name's probability: as it is, then by variant."""
        images, masks = self._prepare(objects)
        embeddings = [
            embed_prompt_images(
                self.backbone, images, masks, name, size=self.masked_size if name in ATTENTION_VARIANTS else self.size
            )
            for _, name in self._rows
        ]
        embedded = F.normalize(torch.stack(embeddings, dim=1).float(), dim=-1)
        scale = self.backbone.clip.logit_scale.float().exp()
        for thing, shown in zip(objects, embedded, strict=True):
            logits = scale * shown @ self._names(thing.names).T
            probability = logits.double().softmax(dim=-1)[:, thing.names.index(thing.name)]
            yield thing.key, thing.image_key, thing.name, len(thing.names), probability.tolist()

    def _prepare(self, objects: Sequence[NamedObject]) -> tuple[Tensor, Tensor]:
        """Float images in [0, 1] `[N, 3, S, S]` and masks `[N, S, S]` of the size they are engineered at, on the device."""
        device, size = self.backbone.clip.visual.conv1.weight.device, (self.side, self.side)
        images = resize_images([thing.image.to(device) for thing in objects], size)
        return images, resize_objects([thing.mask.to(device) for thing in objects], size)

    def _names(self, names: Sequence[str]) -> Tensor:
        """CLIP's unit embeddings `[K, E]` of names in the template; each name is embedded once."""
        new = [name for name in names if name not in self._texts]
        if new:
            embedded = self.backbone.encode_text([fill(TEMPLATE, name) for name in new]).float()
            self._texts |= dict(zip(new, F.normalize(embedded, dim=-1), strict=True))
        return torch.stack([self._texts[name] for name in names])

    def write(self, folder: Path, results: PromptDeltas, *, seed: int) -> None:
        """The results and `report.html` into `folder`; `seed` draws the objects shown in it."""
        results.save(folder)
        write_prompt_report(folder, results, sheets=list(islice(self._sheets(seed), SHEETS)))

    def _sheets(self, seed: int) -> Iterator[Sheet]:
        """Pictures of one object an image, in an order drawn with `seed`."""
        for item in np.random.default_rng(seed).permutation(len(self.source)).tolist():
            for thing in self.source[item][:1]:
                yield Sheet(key=thing.key, names=thing.names, pictures=self._pictures(thing))

    @torch.no_grad()
    def _pictures(self, thing: NamedObject) -> list[Picture]:
        """Return what each variant shows CLIP; what attention masks hide is darkened."""
        images, masks = self._prepare([thing])
        pixels = [(row, VARIANTS[name]) for row, name in self._rows if name in VARIANTS]
        pictures = [
            Picture((row,), _pixels(engineer(images, masks, variant, normalise=normalise, size=self.size)[0]))
            for row, variant in pixels
        ]
        masking = tuple(name for name in self.variants if name in ATTENTION_VARIANTS)
        if masking:
            small = engineer(images, masks, VARIANTS[ORIGINAL], normalise=normalise, size=self.masked_size)
            grid = self.masked_size // self.patch_size
            seen = visible_tokens(*small, self.patch_size)[:, 1:].byte().view(1, 1, grid, grid)
            seen = F.interpolate(seen, size=images.shape[-2:], mode="nearest")[:, 0]
            pictures.append(Picture(masking, _pixels(normalise(darken_background(images, seen, intensity=0.2)))))
        return pictures


def _batches(objects: Iterable[NamedObject], size: int) -> Iterator[list[NamedObject]]:
    iterator = iter(objects)
    while batch := list(islice(iterator, size)):
        yield batch


def _pixels(normalised: Tensor) -> np.ndarray:
    """Normalised `[1, 3, H, W]` -> uint8 RGB `[H, W, 3]`: where there is nothing but zeros, the mean colour."""
    mean, std = (normalised.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    pixels = ((normalised[0] * std + mean) * 255).round().clamp(0, 255).byte()
    return pixels.permute(1, 2, 0).cpu().numpy()


def visual_prompts(job: Job) -> None:
    """Measure what showing an object to CLIP does for its name (Tab. 2); of the weights only the backbone counts."""
    config = job.config
    assert isinstance(config, VisualPromptKeys)
    source = object_source(job.root, split=config.split, settings=config.data)
    variants = choose_variants(config.variant)
    study = PromptStudy(job.model.backbone, source, variants=variants, image_size=config.image_size, protocol=config.protocol)
    results = study.run(provenance=job.origin, processes=job.processes, loader=config.data, progress=True)
    if job.processes.is_main:
        study.write(job.folder, results, seed=config.seed)
        print(format_deltas(results))
