"""What training changes: the decoder and the optimiser that moves it. `training.py` has the loop."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch

from clipseg.errors import ClipSegError
from clipseg.network.model import CLIPSeg
from clipseg.run.checkpoint import as_plain, check_same_run
from clipseg.run.settings import TrainingSettings


class TrainState:
    """What training changes, and so what a checkpoint keeps.

    Args:
        model: of which the decoder learns.
        settings: rate, weight decay and precision.

    Attributes:
        done: steps.
        best: the highest score of a validation so far.
    """

    def __init__(self, model: CLIPSeg, settings: TrainingSettings) -> None:
        self.config = model.config
        self.backbone_checksum = model.backbone.checksum()
        self.decoder = model.decoder
        self.device = next(self.decoder.parameters()).device
        self.optimizer = torch.optim.AdamW(
            self.decoder.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=self.device.type == "cuda"
        )
        self.amp_dtype = choose_amp(settings.amp, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_dtype is torch.float16)
        self.done, self.best = 0, -math.inf

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


def choose_amp(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast type a config names; "auto" is bfloat16 on a GPU that has it, float16 on another, none on the CPU."""
    if name == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name == "fp16" and device.type == "cpu":
        raise ClipSegError("training.amp=fp16 needs a GPU; use bf16 or off on the CPU")
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
