"""What the benchmark measures of a run as it is: how fast workers read, and how well training keeps a device at work."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut
from clipseg.network.feature_cache import TextCache
from clipseg.network.model import CLIPSeg
from clipseg.run.checkpoint import TrainState
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.loading import training_batches
from clipseg.run.settings import LoaderSettings, PromptSettings, TrainingSettings
from clipseg.run.training import forward
from clipseg.studies.speed.timing import count_gflop, peak_gflops, time_calls, timed


def readers(root: Path) -> dict[str, PhraseCut]:
    """Return the readers of both ways to train, of the benchmark's data set."""
    options = {
        "PC": ReaderOptions(training=True),
        "PC+": ReaderOptions(training=True, visual_support=True, negatives=0.2),
    }
    return {name: PhraseCut(root, chosen, split="test") for name, chosen in options.items()}


def reading_rates(root: Path) -> dict[str, float]:
    """Return the items a second that one core reads, of photos of 375×500, by the way to train."""
    return {name: _items_per_second(data) for name, data in readers(root).items()}


def _items_per_second(data: PhraseCut) -> float:
    plan = [(epoch, item) for epoch in range(4) for item in range(len(data))]
    return len(plan) / time_calls(lambda: [data[place] for place in plan]).median


def training_rates(model: CLIPSeg, root: Path, *, steps: int, batch_size: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Train some steps as `train.py` does, at a rate of zero, with a worker for each core; on a GPU compiled, too.

    Yields:
        the way to train, and `images_per_second`; `waiting_for_data`, a share of the time; and `share_of_peak`, of the speed of
        the fastest product found, of the dtype that the products have.
    """
    settings = TrainingSettings(batch_size=batch_size, lr=0.0, final_lr=0.0, weight_decay=0.0)
    state = TrainState(model, settings)
    peak = peak_gflops(state.device, state.amp_dtype or torch.float32)
    ways = {"": model}
    if state.device.type == "cuda":
        ways[", compiled"] = model.at_precision("float32")
        ways[", compiled"].compile_parts()
    for way, chosen in ways.items():
        for name, data in readers(root).items():
            yield name + way, _rates(model, chosen, state, data, steps, batch_size, peak)


def _rates(
    plain: CLIPSeg, model: CLIPSeg, state: TrainState, data: PhraseCut, steps: int, batch_size: int, peak: float
) -> dict[str, float]:
    condition, loader = Conditioner(PromptSettings(templates="extended")), LoaderSettings(workers=os.cpu_count() or 1)
    batches = training_batches(
        data, batch_size=batch_size, processes=Processes(), start=0, loader=loader, left_out=[], device=state.device
    )
    batch, waited = next(batches), 0.0
    step = training_step(model, lambda: forward(model, batch, condition), state)
    gflop = count_gflop(training_step(plain, lambda: forward(plain, batch, condition), state))
    for _ in range(3):  # the second and third may compile what varies
        step()

    def run() -> None:
        nonlocal batch, waited
        for _ in range(steps):
            began = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - began
            condition.known = TextCache()  # a data set of millions of texts in their templates knows none of a batch
            step()

    with contextlib.closing(batches):
        seconds = timed(run, state.device)
    return {
        "images_per_second": steps * batch_size / seconds,
        "waiting_for_data": waited / seconds,
        "share_of_peak": gflop * steps / seconds / peak,
    }


def training_step(
    model: torch.nn.Module, logits_and_masks: Callable[[], tuple[Tensor, Tensor]], state: TrainState | None = None
) -> Callable[[], None]:
    """Return forward, loss, backward and AdamW's step of a model's decoder as one call; at a rate of zero no weight changes.

    Args:
        model: has the decoder.
        logits_and_masks: the forward pass.
        state: whose optimiser and precision are taken; None: another AdamW, and float32.
    """
    decoder: Any = model.decoder
    optimizer = state.optimizer if state else torch.optim.AdamW(decoder.parameters(), lr=0.0, fused=True)

    def step() -> None:
        decoder.train()
        with state.autocast() if state else contextlib.nullcontext():
            logits, masks = logits_and_masks()
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(logits.float(), masks.float()).backward()
        optimizer.step()

    return step
