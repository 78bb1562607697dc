"""Generalised zero-shot segmentation: every class name asks every image, and the largest answer wins each pixel (Tab. 4)."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from clipseg.data.classes import PASCAL_CLASSES
from clipseg.data.pascal import PascalZeroShot
from clipseg.data.sampling import shard
from clipseg.measure.multiclass import confusion, predict_with_prompt, predict_with_threshold
from clipseg.measure.multiclass_results import MulticlassResults
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import prepare_images, resize_masks
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.settings import PromptSettings

BACKGROUND = "background"


@torch.no_grad()
def measure_zero_shot(
    model: CLIPSeg,
    data: PascalZeroShot,
    *,
    prompt: PromptSettings,
    seed: int,
    background_threshold: float | None,
    unseen: Sequence[str],
    provenance: Mapping[str, Any],
    processes: Processes,
) -> MulticlassResults:
    """Count, over all images, which class was taken for which; on every process the counts of all.

    Args:
        model: its text prompts are "background" and the twenty class names.
        data: images with label maps; both are squashed to the model's size.
        prompt: the templates around the names.
        seed: draws a name's template where there are several.
        background_threshold: background is where no class is above it; None: where its own prompt, times 3, is largest.
        unseen: the classes left out of training.
        provenance: what the results shall say of their origin.
        processes: who shares the work.
    """
    began = time.perf_counter()
    model.eval()
    names = (BACKGROUND, *PASCAL_CLASSES)
    conditions = Conditioner(prompt).texts(model, names, [seed] * len(names))
    matrix = np.zeros((len(names), len(names)), dtype=np.int64)
    items = shard(len(data), processes.rank, processes.world_size)
    for item in tqdm(items, unit="image", disable=None if processes.is_main else True, leave=False):
        labelled = data[item]
        probabilities = _probabilities(model, labelled.image, conditions)
        if background_threshold is None:
            predicted = predict_with_prompt(probabilities)
        else:
            predicted = predict_with_threshold(probabilities[1:], threshold=background_threshold)
        labels = resize_masks([labelled.labels], (predicted.shape[0], predicted.shape[1]))[0]
        matrix += confusion(predicted, labels, classes=len(PASCAL_CLASSES))
    return MulticlassResults(
        matrix=sum(processes.gather(matrix)),
        names=names,
        unseen=tuple(unseen),
        images=len(data),
        seconds=max(processes.gather(time.perf_counter() - began)),
        provenance=provenance,
    )


def _probabilities(model: CLIPSeg, image: Tensor, conditions: Tensor) -> Tensor:
    """One image asked by N prompts: float32 `[N, S, S]`."""
    size = (model.config.image_size, model.config.image_size)
    activations = model.activations(prepare_images([image.to(conditions.device)], size))
    one_image = torch.zeros(len(conditions), dtype=torch.int64, device=conditions.device)
    return model.decode(activations, conditions, one_image).float().sigmoid()
