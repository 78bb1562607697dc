"""Training, in plain sight: the frozen CLIP gives activations and conditions, the decoder learns masks from them."""

import contextlib
import importlib.util
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from clipseg.data.sample import Batch, Reader
from clipseg.errors import ClipSegError
from clipseg.network.backbone import Activations
from clipseg.network.config import ModelConfig
from clipseg.network.model import CLIPSeg, create_model
from clipseg.network.preprocess import prepare_images, resize_masks
from clipseg.network.weights import load
from clipseg.run.checkpoint import TrainState, read_checkpoint, save_checkpoint
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes, averaging_gradients
from clipseg.run.interruption import Interruption
from clipseg.run.loading import training_batches
from clipseg.run.log import RunLog
from clipseg.run.settings import LoaderSettings, TrainConfig, TrainingSettings
from clipseg.run.workers import naming_worker_failures


@naming_worker_failures()
def train_decoder(
    model: CLIPSeg,
    data: Reader,
    *,
    settings: TrainingSettings,
    seed: int,
    loader: LoaderSettings,
    threshold: float,
    folder: Path,
    state: dict[str, Any] | None,
    condition: Conditioner,
    validate: Callable[[int], float],
    log: RunLog,
    processes: Processes,
    interruption: Interruption,
    debug: str | None = None,
) -> None:
    """Train the decoder of `model` from `state` (None: from the start) to `settings.steps`, with checkpoints under `folder`.

    Step s draws its batch and its dropout from (seed, s) alone, so a run that was stopped goes on as if it never had been.
    Among several processes the batch, its loss and its gradient stay those of one, up to rounding; the dropout does not: each
    process draws its own.

    Args:
        loader: how batches are read.
        threshold: at which the progress line's IoU cuts the probabilities.
        condition: how the targets of a batch are described.
        validate: called with the number of steps done; what it returns decides which checkpoint is the best.
        interruption: a signal ends training after the step, with a checkpoint, in all processes at the same one.
        debug: "profile" ends after some steps and tells where their time went.

    Raises:
        ClipSegError: the loss of a step since the last record or checkpoint is not finite, a batch cannot be read, nothing can
            be written, or `state` is of another model.
        Stopped: by a signal.
    """
    train_state = TrainState(model, settings)
    if state is not None:
        train_state.load_state_dict(state)
    decoder, optimizer, scaler, device = train_state.decoder, train_state.optimizer, train_state.scaler, train_state.device
    learning = model.at_precision("bf16" if settings.amp == "bf16" and device.type == "cpu" else "float32")
    if processes.world_size > 1:
        learning.decoder = averaging_gradients(decoder)
    if settings.compile:
        check_compiler(device)
        learning.compile_parts()

    def save(*names: str) -> None:
        log.check()  # no checkpoint of weights that a broken step has changed
        if processes.is_main:
            log.flush()
            for name in names:
                save_checkpoint(folder / "checkpoints" / name, train_state.state_dict() | {"log": log.state_dict()})

    def finish(done: int) -> None:
        if is_due(done, settings.validate_every, settings.steps):
            with interruption.at_once():
                score = validate(done)
            if score > train_state.best:
                train_state.best, train_state.best_step = score, done
                save("best.pt")
            elif settings.patience and done - train_state.best_step >= settings.patience * settings.validate_every:
                train_state.ended = True
        log.end_step(done)

    batches = training_batches(
        data,
        batch_size=settings.batch_size // settings.phrases_per_image,
        processes=processes,
        start=train_state.done,
        loader=loader,
        left_out=log.left_out,
        device=device,
    )
    with interruption.deferred(), contextlib.closing(batches):
        # A step's checkpoint is written before its validation: a run that goes on begins with what may have been missed.
        if not train_state.ended:
            finish(train_state.done)
        steps = range(train_state.done, train_state.done if train_state.ended else settings.steps)
        for step in _profiled(steps, folder, processes) if debug == "profile" else steps:
            waiting = time.perf_counter()
            # Until the first one is there, workers start and nothing is lost.
            with interruption.at_once() if step == steps.start else contextlib.nullcontext():
                batch = next(batches)
            waited = time.perf_counter() - waiting

            model.train()
            torch.manual_seed(step_seed(seed, step, processes.rank))
            lr = learning_rate(step, settings)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with train_state.autocast():
                logits, masks = forward(learning, batch, condition)
            loss = settings.loss(logits, masks)

            optimizer.zero_grad(set_to_none=True)
            share = processes.batch_weight(len(batch), device)
            with record_function("backward"):
                scaler.scale(loss * share).backward()
            scaler.unscale_(optimizer)
            gradient_norm = torch.linalg.vector_norm(
                torch.stack([torch.linalg.vector_norm(p.grad) for p in decoder.parameters()])
            )
            scaler.step(optimizer)
            scaler.update()

            train_state.done = done = step + 1
            log.training_step(
                done,
                lr=lr,
                losses=(loss.detach(), processes.sum(loss.detach() * share) / processes.world_size),
                norm=gradient_norm,
                iou=processes.sum(batch_iou(logits, masks, threshold)),
                batch=batch,
                waited=waited,
            )
            stopping = processes.any_rank(interruption.received is not None)
            if is_due(done, settings.checkpoint_every, settings.steps):
                save(f"step_{done:07d}.pt", "last.pt")
            elif stopping or is_due(done, settings.validate_every, settings.steps):
                save("last.pt")
            if stopping:
                processes.gather(None)  # a process that leaves makes the others end: first the main one saves
                raise interruption.stopped(f" after step {done} of {settings.steps}")
            finish(done)
            if train_state.ended:
                break
    if settings.patience and not debug:
        best = read_checkpoint(folder / "checkpoints" / "best.pt")["model"] if processes.is_main else None
        decoder.load_state_dict(processes.broadcast(best))
        train_state.ended = True
        save("last.pt")


def _profiled(steps: range, folder: Path, processes: Processes) -> Iterator[int]:
    from clipseg.run.profile import profiled

    return profiled(steps, folder / "profile" if processes.is_main else None)


def initial_model(config: TrainConfig, device: torch.device, *, given: Collection[str]) -> CLIPSeg:
    """Build the model that a training starts from: `config.model` with a fresh decoder, or `training.init`.

    Args:
        config: its `model` becomes that of the weights where there are some.
        device: where the model goes.
        given: keys that were named on the command line.

    Raises:
        ClipSegError: weights that cannot be had, or a key that contradicts them.
    """
    init, asked, default = config.training.init, config.model, ModelConfig()
    if init is None:
        return create_model(**vars(asked)).to(device)
    named = {key for key in vars(default) if f"model.{key}" in given or getattr(asked, key) != getattr(default, key)}
    named |= {"backbone"} & set(given)
    places = {"pretrained", "image_tower_pretrained"}  # where CLIP's weights lie may be said; what they are may not change
    model = load(init, device=device, **{key: getattr(asked, key) for key in places if f"model.{key}" in given})
    model.calibration = {}  # of the weights as they were
    if "image_size" in named:
        model = model.at_size(asked.image_size)
    for key in sorted(named - places - {"seed"}):
        wanted, found = getattr(asked, key), getattr(model.config, key)
        if wanted != found:
            raise ClipSegError(f"model.{key}={wanted} contradicts training.init={init}, which has {found}; leave it out")
    config.model = model.config
    return model


def is_due(done: int, every: int, steps: int) -> bool:
    """Whether it is time, after `done` steps, for what happens every so many steps and at the end."""
    return done > 0 and (done % every == 0 or done == steps)


def forward(model: CLIPSeg, batch: Batch, condition: Conditioner) -> tuple[Tensor, Tensor]:
    """A batch through the network: logits `[N, S, S]` and uint8 masks `[N, S, S]` at the model's image size S."""
    size = (model.config.image_size, model.config.image_size)

    def activations_of(images: Sequence[Tensor]) -> Activations:
        with record_function("preparation"):
            prepared = prepare_images(images, size, resize=condition.resize)
        with record_function("backbone"):
            return model.activations(prepared)

    if condition.cache is None:
        activations = activations_of(batch.images)
    else:
        kind = f"activations {model.config.extract_layers} {size} {condition.resize} {model.backbone.precision}"
        tokens = condition.cache.look_up(kind, activations_of, batch.images)
        side = math.isqrt(tokens[0].shape[1] - 1)  # a square of patches, perhaps at a tower's own size
        activations = Activations(tokens, (side, side), size)
    with record_function("preparation"):
        masks = resize_masks(batch.masks, size, resize=condition.resize)
    conditions = condition(model, batch)
    with record_function("decoder"):
        return model.decode(activations, conditions, batch.image_index), masks


def check_compiler(device: torch.device) -> None:
    """Raise `ClipSegError` where torch.compile would find nothing to compile with."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ClipSegError("training.compile=true needs the package triton on a GPU; install it, or leave compile out")
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ClipSegError("training.compile=true needs a C++ compiler on the CPU; install g++, or leave compile out")


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Cosine from `lr` at step 0 to `final_lr` at the end, without warm-up."""
    return settings.final_lr + (settings.lr - settings.final_lr) * (1 + math.cos(math.pi * step / settings.steps)) / 2


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of everything a process draws in one step; distinct for distinct (seed, step, rank) of any sensible size."""
    return (seed * 1_000_003 + step) * 65_537 + rank


@torch.no_grad()
def batch_iou(logits: Tensor, masks: Tensor, threshold: float) -> Tensor:
    """Intersection and union of a batch at one threshold, summed over its pixels: int64 `[2]`, left on the device."""
    predicted, truth = logits.sigmoid() > threshold, masks > 0
    return torch.stack([(predicted & truth).sum(), (predicted | truth).sum()])


def set_deterministic(wanted: bool) -> None:
    """Compute what follows by algorithms that give the same bits each time, or by the fastest; called before a GPU is used.

    Everything random comes from the seed either way. On a CPU this makes equal runs equal bit for bit, for any number of
    `data.workers`. Another number of threads adds in another order and may differ in the last bits, as may another machine or
    version of torch.
    """
    if wanted:
        # cuBLAS reads it when it starts; without it torch refuses matrix products on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = False
