"""The state that training changes, checkpoints of it that are whole or absent, and the way back into a run.

A checkpoint holds the decoder, the optimiser, the step, the config and what the log has yet to write; not CLIP, which comes
from where it came from (its checksum tells whether it is still the same). Everything random in training is a function of
(seed, step), so no generator's state is kept.
"""

import contextlib
import dataclasses
import io
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clipseg.errors import ClipSegError
from clipseg.files import atomic_write
from clipseg.network.model import CLIPSeg
from clipseg.network.tensor_files import check_archive, check_unpacked_size
from clipseg.network.weights import CHECKPOINT
from clipseg.run.settings import TrainingSettings


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values only) to `path`, atomically."""
    content = io.BytesIO()  # torch's writer tells nothing of a full disk but that it failed
    torch.save(CHECKPOINT | state, content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing but tensors and plain values is ever unpickled.

    Raises:
        ClipSegError: missing, cut off, damaged, or written by something else.
    """
    if not path.is_file():  # a pipe would be waited for without end
        raise ClipSegError(f"{path}: {'no regular file' if path.exists() else 'no such checkpoint'}")
    check_unpacked_size(path)
    check_archive(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive can fail anywhere in torch's reader
        raise ClipSegError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); it may be cut off, or not ours"
        ) from error
    if not isinstance(state, dict) or {key: state.get(key) for key in CHECKPOINT} != CHECKPOINT:
        raise ClipSegError(f"{path}: not a checkpoint of train.py (version {CHECKPOINT['version']})")
    return state


def find_resume(resume: str | None, folder: Path) -> dict[str, Any] | None:
    """The state to go on from, or None for a fresh start.

    Args:
        resume: None; "auto": the newest whole checkpoint in `folder`, if there is one; or a checkpoint file or run folder.
        folder: the run's own output folder.

    Returns:
        what `save_checkpoint` was given.

    Raises:
        ClipSegError: a path that does not hold a checkpoint; or `folder` holds a run and nobody said what to do with it.
    """
    if resume is None:
        if any((folder / "checkpoints").glob("*.pt")) or (folder / "config.yaml").exists():
            raise ClipSegError(f"out={folder} already holds a run: go on with it (resume=auto) or choose another folder")
        return None
    if resume == "auto":
        return newest_whole(folder)
    path = Path(resume)
    if not path.is_dir():
        return read_checkpoint(path)
    state = newest_whole(path)
    if state is None:
        raise ClipSegError(f"resume={resume}: no checkpoint under {path / 'checkpoints'}")
    return state


def newest_whole(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run folder that can be read; each damaged one before it is named in a warning."""
    checkpoints = folder / "checkpoints"
    candidates = [checkpoints / "last.pt", *sorted(checkpoints.glob("step_*.pt"), reverse=True), checkpoints / "best.pt"]
    damaged = None
    for path in candidates:
        if not path.exists():
            continue
        try:
            return read_checkpoint(path)
        except ClipSegError as error:
            warnings.warn(f"{error}; looking for an older one", stacklevel=2)
            damaged = error
    if damaged is not None:
        raise ClipSegError(f"{folder}: every checkpoint is damaged; the last error was: {damaged}")
    return None


def check_same_run(state: Mapping[str, Any], model_config: Any, backbone_checksum: str) -> None:
    """Raise `ClipSegError` where a checkpoint belongs to another model than the one being trained."""
    ours, theirs = as_plain(model_config), state["model_config"]
    # Where the weights lie may change between machines; what they are may not, and the checksum sees to that.
    differing = [key for key in ours if key not in ("pretrained", "image_tower_pretrained") and ours[key] != theirs.get(key)]
    if differing:
        found = ", ".join(f"{key}={theirs.get(key)!r} (now {ours[key]!r})" for key in differing)
        raise ClipSegError(f"the checkpoint is of another model: {found}; resume with its own config")
    if state["backbone_checksum"] != backbone_checksum:
        raise ClipSegError(
            "the checkpoint was trained on other backbone weights than those loaded now; set model.pretrained to those"
        )


def as_plain(config: Any) -> dict[str, Any]:
    """A dataclass as the plain dictionary of lists and scalars that checkpoints and JSON hold."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(config).items()}


class TrainState:
    """The state that training changes, and so a checkpoint keeps.

    Args:
        model: of which the decoder learns.
        settings: rate, weight decay and precision.

    Attributes:
        done: steps.
        best: the highest score of a validation so far.
        best_step: the step it was reached at.
        ended: nothing is left to train, whatever the number of steps: `training.patience` is spent.
    """

    def __init__(self, model: CLIPSeg, settings: TrainingSettings) -> None:
        self.config = model.config
        self.backbone_checksum = model.backbone.checksum()
        self.decoder = model.decoder
        self.device = next(self.decoder.parameters()).device
        self.optimizer = torch.optim.AdamW(
            self.decoder.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.amp_dtype = choose_amp(settings.amp, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)
        self.done, self.best, self.best_step, self.ended = 0, -math.inf, 0, False

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass, in the precision of `training.amp`."""
        return torch.autocast(self.device.type, self.amp_dtype) if self.amp_dtype else contextlib.nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "model": self.decoder.state_dict(),
            "model_config": as_plain(self.config),
            "backbone_checksum": self.backbone_checksum,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.done,
            "best": self.best,
            "best_step": self.best_step,
            "ended": self.ended,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ClipSegError: that was of another model.
        """
        check_same_run(state, self.config, self.backbone_checksum)
        self.decoder.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.done, self.best = state["step"], state["best"]
        self.best_step, self.ended = state.get("best_step", 0), state.get("ended", False)


def choose_amp(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast type a config names; "auto" is bfloat16 on a GPU that has it, float16 on another. None on the CPU."""
    if name == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name == "fp16" and device.type == "cpu":
        raise ClipSegError("training.amp=fp16 needs a GPU; use bf16 or off on the CPU")
    if device.type == "cpu":
        return None  # bf16 is for the frozen part alone, which autocast would cast anew at every step
    return {"auto": None, "off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
