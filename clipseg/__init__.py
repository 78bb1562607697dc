"""CLIPSeg: image segmentation using text and image prompts (Lüddecke and Ecker, CVPR 2022), from scratch in PyTorch."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from clipseg.errors import ClipSegError

if TYPE_CHECKING:
    from clipseg.classification import classify
    from clipseg.network.formats.transformers import save_transformers
    from clipseg.network.model import create_model
    from clipseg.network.weights import load
    from clipseg.prompts.support import Mix, VisualPrompt
    from clipseg.segmenter import Segmenter

__all__ = ["ClipSegError", "Mix", "Segmenter", "VisualPrompt", "classify", "create_model", "load", "save_transformers"]

try:
    __version__ = version("clipseg")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0"

# Imported on first use: torch and open_clip take seconds, and `clipseg --help` or a reader of JSON needs neither.
_HOMES = {
    "Mix": "clipseg.prompts.support",
    "Segmenter": "clipseg.segmenter",
    "VisualPrompt": "clipseg.prompts.support",
    "classify": "clipseg.classification",
    "create_model": "clipseg.network.model",
    "load": "clipseg.network.weights",
    "save_transformers": "clipseg.network.formats.transformers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipseg' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
