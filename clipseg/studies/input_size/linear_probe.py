"""CLIP's linear probe over the size of its input (Fig. 5): is what a frozen CLIP sees at other sizes still of use?

Every image is read once, and embedded once at each size; at each, a logistic regression learns the classes from the training
images' embeddings. Of a model only its CLIP takes part.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from clipseg.errors import ClipSegError
from clipseg.measure.significance import share_interval
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.preprocess import prepare_images
from clipseg.run.distributed import Processes
from clipseg.run.jobs import Job
from clipseg.run.loading import evaluation_batches
from clipseg.run.settings import LoaderSettings
from clipseg.studies.input_size.curves import SizeCurves, format_curves
from clipseg.studies.input_size.image_classes import ImagesByClass, class_folders, single_objects
from clipseg.studies.input_size.logistic_regression import classify_linearly
from clipseg.studies.input_size.run import choose_sizes
from clipseg.studies.input_size.settings import SizeKeys

BATCH = 32  # images
ABOUT = (
    "A logistic regression on the embedding that a frozen CLIP makes of its class token (features standardised over the "
    "training images, L2 penalty with C = 1), learned anew at each size. Images are squashed to the size, the positional "
    "embedding is interpolated."
)


def measure_linear_probe(
    backbone: CLIPBackbone,
    data: ImagesByClass,
    *,
    sizes: Sequence[int],
    provenance: Mapping[str, Any],
    processes: Processes,
    loader: LoaderSettings,
) -> SizeCurves:
    """Accuracy on the test images at each size, with Wilson's 95% interval.

    Args:
        backbone: the CLIP that is probed.
        data: images to learn from and images to test on.
        sizes: sides in pixels, multiples of CLIP's patch size.
        provenance: what the results shall say of their origin.
        processes: who shares the work of embedding.
        loader: how images are read; all are needed.

    Raises:
        ClipSegError: an image cannot be read.
    """
    if loader.unreadable != "stop":
        raise ClipSegError(f"data.unreadable={loader.unreadable}: the linear probe needs all of its images; leave the key out")
    began = time.perf_counter()
    embedded = _embed(backbone, data, sizes, processes=processes, loader=loader)
    is_test, labels = data.is_test, data.labels
    hits = []
    for at_size in embedded:
        found = classify_linearly(at_size[~is_test], labels[~is_test], at_size[is_test], classes=len(data.names))
        hits.append(int((found == labels[is_test]).sum()))
    tested = int(is_test.sum())
    return SizeCurves(
        sizes=tuple(sizes),
        native=backbone.clip.visual.image_size[0],
        curves={"accuracy": [count / tested for count in hits]},
        titles={"accuracy": "accuracy"},
        intervals={"accuracy": [share_interval(count, tested) for count in hits]},
        about=f"{ABOUT} {len(data.names)} classes, learned from {len(data) - tested} images and tested on {tested}; interval: "
        "Wilson's.",
        samples=tested,
        seconds=max(processes.gather(time.perf_counter() - began)),
        provenance=provenance,
    )


@torch.no_grad()
def _embed(
    backbone: CLIPBackbone, data: ImagesByClass, sizes: Sequence[int], *, processes: Processes, loader: LoaderSettings
) -> NDArray[np.float32]:
    """CLIP's embeddings at each size, `[S, I, E]`; on every process those of all images."""
    weight = backbone.clip.visual.conv1.weight
    read = evaluation_batches(data, range(len(data)), processes=processes, loader=loader, left_out=[], device=weight.device)
    images = (image for batch in read for image in batch.images)
    total = len(range(processes.rank, len(data), processes.world_size))
    shown = tqdm(images, total=total, unit="image", disable=None if processes.is_main else True, leave=False)
    own = [
        torch.stack([backbone.encode_image(prepare_images(some, (size, size)).to(weight)).float() for size in sizes]).cpu()
        for some in _chunks(shown, BATCH)
    ]
    embedded = np.empty((len(sizes), len(data), backbone.embed_dim), dtype=np.float32)
    for rank, part in enumerate(processes.gather(torch.cat(own, dim=1).numpy() if own else embedded[:, :0])):
        embedded[:, rank :: processes.world_size] = part
    return embedded


def _chunks(images: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    iterator = iter(images)
    while chunk := list(islice(iterator, size)):
        yield chunk


def linear_probe(job: Job) -> None:
    """How well classes are told apart by CLIP's image embedding over the size of the input (Fig. 5); no decoder takes part."""
    config, visual = job.config, job.model.backbone.clip.visual
    assert isinstance(config, SizeKeys)
    sizes = choose_sizes(config.image_sizes, native=visual.image_size[0], patch_size=visual.patch_size[0])
    is_synthetic = config.data.root == "mini"
    curves = measure_linear_probe(
        job.model.backbone,
        single_objects(seed=config.seed) if is_synthetic else class_folders(job.root, split=config.split, seed=config.seed),
        sizes=sizes,
        provenance={**job.origin, "backbone": job.model.config.backbone},
        processes=job.processes,
        loader=config.data,
    )
    if job.processes.is_main:
        curves.write(job.folder)
        print(format_curves(curves))
