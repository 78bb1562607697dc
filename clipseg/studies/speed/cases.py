"""The cases of `clipseg benchmark`: this package against transformers' CLIPSeg with the same weights, against metrics that
sort the pixels once a threshold, and against a reader that tests every pixel of a photo against a polygon.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.rasterise import rasterise
from clipseg.data.sample import Batch, collate
from clipseg.errors import ClipSegError
from clipseg.measure.metrics import SampleCounts, count
from clipseg.network.formats.transformers import to_transformers
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import prepare_images, resize_masks
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.evaluation import Evaluation
from clipseg.run.loading import IN_PROCESS, evaluation_batches
from clipseg.run.settings import PromptSettings
from clipseg.run.training import forward
from clipseg.studies.speed.references import (
    PER_IMAGE,
    PHOTO,
    PHRASES,
    counts_by_sorting,
    draw_data_set,
    polygon_mask,
    read_by_polygon2mask,
)
from clipseg.studies.speed.throughput import training_step
from clipseg.studies.speed.timing import Case, peak_mib


class Cases:
    """The rows of the benchmark's table, made when they are asked for.

    Args:
        model: whose weights both sides have.
        folder: empty; gets a data set of five synthetic photos.
    """

    def __init__(self, model: CLIPSeg, folder: Path):
        self.model = model
        self.folder = folder
        self.device = next(model.decoder.parameters()).device
        self.size = (model.config.image_size, model.config.image_size)
        self.makers: dict[str, Callable[[], Case]] = {
            "prompt": lambda: self.segmentation(1),
            "prompt_bf16": lambda: self.segmentation_bf16(1),
            "prompts": lambda: self.segmentation(8),
            "prompts_bf16": lambda: self.segmentation_bf16(8),
            "training": self.training,
            "training_bf16": self.training_bf16,
            "evaluation": self.evaluation,
            "metrics": self.metrics,
            "reader": self.reader,
        }

    @functools.cached_property
    def reference(self) -> Any:
        """transformers' CLIPSeg with the weights of `model`."""
        _require("transformers", "prompt, prompts, training, evaluation and memory")
        from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

        config, state = to_transformers(self.model)
        reference: Any = CLIPSegForImageSegmentation(CLIPSegConfig(**config))
        reference.load_state_dict(state)
        reference.requires_grad_(False).decoder.requires_grad_(True)
        return reference.to(self.device).eval()

    @functools.cached_property
    def root(self) -> Path:
        """A data set in PhraseCut's layout."""
        draw_data_set(self.folder)
        return self.folder

    def segmentation(self, prompts: int) -> Case:
        """One image, some prompts: logits."""
        ours, theirs = self._ours(self.model, prompts), self._theirs(prompts)
        return Case(
            name=f"{prompts} prompt{'s' * (prompts > 1)}, one image",
            ours=ours,
            theirs=theirs,
            reference="transformers",
            difference=lambda: _distance(ours(), theirs()),
        )

    def segmentation_bf16(self, prompts: int) -> Case:
        """As `segmentation`, in bfloat16 against our own float32; the difference is in standard deviations of the logits."""
        ours, theirs = self._ours(self.model.at_precision("bf16"), prompts), self._ours(self.model, prompts)
        return Case(
            name=f"{prompts} prompt{'s' * (prompts > 1)}, bf16",
            ours=ours,
            theirs=theirs,
            reference="our float32",
            difference=lambda: _distance(ours(), theirs()) / theirs().std().item(),
            tolerance=0.2,
            dtype=torch.bfloat16,
        )

    @functools.cached_property
    def image(self) -> Tensor:
        """Noise, `[1, 3, S, S]`."""
        return torch.randn(1, 3, *self.size, generator=torch.Generator().manual_seed(0)).to(self.device)

    def _ours(self, model: CLIPSeg, prompts: int) -> Callable[[], Tensor]:
        phrases = _phrases(prompts)
        index = torch.zeros(prompts, dtype=torch.int64, device=self.device)
        model.eval()

        @torch.no_grad()
        def logits() -> Tensor:
            return model.decode(model.activations(self.image), model.encode_text(phrases), index)

        return logits

    def _theirs(self, prompts: int) -> Callable[[], Tensor]:
        @torch.no_grad()
        def logits() -> Tensor:
            return self._reference_logits(self.image.expand(prompts, -1, -1, -1), _phrases(prompts))

        return logits

    def _reference_logits(self, images: Tensor, phrases: Sequence[str]) -> Tensor:
        # It squeezes the batch of one away.
        logits: Tensor = self.reference(pixel_values=images, input_ids=self._tokens(phrases)).logits
        return logits.view(len(images), *images.shape[2:])

    def _tokens(self, phrases: Sequence[str]) -> Tensor:
        """Tokens up to the longest text, as transformers' own processor pads them."""
        tokens = self.model.backbone.tokenize(phrases)
        return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1].to(self.device)

    def memory(self, prompts: Sequence[int]) -> list[dict[str, float | None]]:
        """Return what one image with so many prompts takes in MiB, on both sides."""
        rows: list[dict[str, float | None]] = []
        for number in prompts:
            ours, theirs = self._ours(self.model, number), self._theirs(number)
            rows.append(
                {"prompts": number, "ours_mib": peak_mib(ours, self.device), "reference_mib": peak_mib(theirs, self.device)}
            )
        return rows

    def training(self) -> Case:
        """A whole step, batch 8, by text: resize, forward, backward, AdamW."""
        batch, condition = self._training_batch(), Conditioner(PromptSettings())
        masks = resize_masks(batch.masks, self.size)

        def theirs() -> Tensor:
            images = prepare_images(batch.images, self.size)
            return self._reference_logits(images[batch.image_index], batch.phrases)

        def difference() -> float:
            self.model.eval()
            self.reference.eval()
            with torch.no_grad():
                return _distance(forward(self.model, batch, condition)[0], theirs())

        return Case(
            name="training step, batch 8, text",
            ours=training_step(self.model, lambda: forward(self.model, batch, condition)),
            theirs=training_step(self.reference, lambda: (theirs(), masks)),
            reference="transformers",
            difference=difference,
        )

    def training_bf16(self) -> Case:
        """The same, with the frozen part in bfloat16, against our own float32."""
        batch, condition = self._training_batch(), Conditioner(PromptSettings())
        half = self.model.at_precision("bf16")

        def difference() -> float:
            self.model.eval()
            with torch.no_grad():
                (ours, _), (theirs, _) = (forward(model, batch, condition) for model in (half, self.model))
            return _distance(ours, theirs) / theirs.std().item()

        return Case(
            name="training step, batch 8, bf16",
            ours=training_step(half, lambda: forward(half, batch, condition)),
            theirs=training_step(self.model, lambda: forward(self.model, batch, condition)),
            reference="our float32",
            difference=difference,
            tolerance=0.2,
            dtype=torch.bfloat16,
        )

    def _training_batch(self) -> Batch:
        data = PhraseCut(self.root, ReaderOptions(training=True), split="test")
        return collate([data[epoch, 0] for epoch in range(8)]).to(self.device)

    def evaluation(self) -> Case:
        """Five photos with 28 phrases, from JPEG to counts; the reference has our reader and our counts."""
        data = PhraseCut(self.root, split="test")
        evaluation = Evaluation(
            model=self.model,
            data=data,
            condition=Conditioner(PromptSettings()),
            threshold=0.3,
            provenance={},
            processes=Processes(),
            loader=IN_PROCESS,
        )

        @torch.no_grad()
        def probabilities(batch: Batch) -> Tensor:
            images = prepare_images(batch.images, self.size)
            return self._reference_logits(images[batch.image_index], batch.phrases).sigmoid()

        def theirs() -> SampleCounts:
            self.reference.eval()
            items = range(len(data))
            batches = evaluation_batches(data, items, processes=Processes(), loader=IN_PROCESS, left_out=[], device=self.device)
            rows = [evaluation.measure(batch, probabilities(batch), None) for batch in batches]
            return SampleCounts.concatenate(row["counts"] for row in rows)

        def difference() -> float:
            # A pixel at a threshold may fall to either side: counts may differ by a few pixels in 100,000.
            ours, other = evaluation.run().counts, theirs()
            return float((np.abs(ours.tp - other.tp) + np.abs(ours.fp - other.fp)).max() / ours.pixels.min())

        return Case(
            name=f"evaluation, {len(PER_IMAGE)} photos of 5.6 phrases",
            ours=evaluation.run,
            theirs=theirs,
            reference="transformers",
            difference=difference,
            tolerance=1e-3,
        )

    def metrics(self) -> Case:
        """Counts of one sample at 49 thresholds."""
        generator = np.random.default_rng(0)
        probabilities = generator.random(self.size, dtype=np.float32)
        mask = (generator.random(self.size) < 0.3).astype(np.uint8)

        def difference() -> float:
            ours = count(probabilities[None], mask[None])
            return float(np.abs(np.stack([ours.tp[0], ours.fp[0]], axis=1) - counts_by_sorting(probabilities, mask)).max())

        return Case(
            name=f"metrics, one {self.size[0]}×{self.size[1]} sample",
            ours=lambda: count(probabilities[None], mask[None]),
            theirs=lambda: counts_by_sorting(probabilities, mask),
            reference="sorting once a threshold",
            difference=difference,
            tolerance=0,
            with_flops=False,
        )

    def reader(self) -> Case:
        """JPEG and polygons to a cropped uint8 sample with its mask."""
        _require("skimage", "reader")
        data = PhraseCut(self.root, ReaderOptions(training=True), split="test")
        path, polygon = self.root / "images" / "0.jpg", data.tasks.polygons(0)[0]
        item = next(n for n in range(len(data)) if data.epoch_plan(0)[n].tolist() == [0])

        def difference() -> float:
            ours, (image, mask) = data[0, item], read_by_polygon2mask(path, polygon, np.random.default_rng(0))
            assert (ours.image.shape, ours.tasks[0].mask.shape) == (image.shape, mask.shape)
            return float((rasterise([polygon], *PHOTO) != polygon_mask(polygon)).mean())

        return Case(
            name="reader: JPEG, mask and crop",
            ours=lambda: data[0, item],
            theirs=lambda: read_by_polygon2mask(path, polygon, np.random.default_rng(0)),
            reference="scikit-image's polygon2mask",
            difference=difference,
            tolerance=0,
            with_flops=False,
        )


def _phrases(number: int) -> list[str]:
    return [PHRASES[n % len(PHRASES)] for n in range(number)]


def _require(package: str, rows: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ClipSegError(f"{rows}: what they are compared with is missing; install it with: pip install 'clipseg[benchmark]'")


def _distance(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()
