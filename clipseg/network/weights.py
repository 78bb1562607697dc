"""Trained models in, whatever wrote them, and decoders out: which kind of file it is gets found out by looking at it."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as to_safetensors

from clipseg.errors import ClipSegError, one_line
from clipseg.files import atomic_write, naming_disk_errors, read_json, write_json
from clipseg.network.clip_weights import WEIGHT_SUFFIXES
from clipseg.network.config import ModelConfig
from clipseg.network.model import CLIPSeg, build_backbone
from clipseg.network.tensor_files import (
    FOLDER_NAMES,
    check_archive,
    check_tensors,
    is_transformers_folder,
    plain_defaults,
    quiet_hub,
    read_weights,
    shapes_of,
)

MINI_PATH = Path(__file__).parents[1] / "assets" / "mini"
CHECKPOINT = {"format": "clipseg-checkpoint", "version": 1}
RELEASE = {"format": "clipseg-release", "version": 1}


class Chosen(NamedTuple):
    """The choices of the caller of `load`; None: what the file says."""

    pretrained: str | Path | None
    extract_layers: tuple[int, ...] | None
    image_tower_pretrained: str | Path | None


@plain_defaults()
def load(
    x: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    pretrained: str | Path | None = None,
    extract_layers: Sequence[int] | None = None,
    image_tower_pretrained: str | Path | None = None,
    precision: str = "float32",
) -> CLIPSeg:
    """A trained model, in evaluation mode; its `config` says what it was built from.

    Args:
        x: a run folder (its last checkpoint) or checkpoint file of train.py; a released folder; a state dict of the authors
            (rd64-uni.pth, rd64-uni-refined.pth, rd16-uni.pth); a folder in transformers' layout; the name of one, or of a
            release, on the Hugging Face hub ("CIDAS/clipseg-rd64-refined"); or "mini", the bundled model.
        device: where the model goes; "auto" is a GPU where there is one.
        pretrained: where CLIP's weights come from when x holds the decoder alone: an open_clip tag, or a local file or
            folder. By default what the file says; for the authors' files "openai".
        extract_layers: read-outs other than those the file says; for the authors' files, which do not say it, (3, 6, 9)
            by default.
        image_tower_pretrained: where the weights of a ViTSeg's image tower lie, if not where the file says.
        precision: of the frozen part's products, "float32" or "bf16" (`CLIPSeg.at_precision`).

    Raises:
        ClipSegError: nothing there, something else, damaged, other keys, shapes or values than the model's, or another CLIP
            than the decoder was trained on.
    """
    path = _locate(x)
    try:
        layers = None if extract_layers is None else tuple(extract_layers)
    except TypeError as error:
        raise ClipSegError(f"extract_layers={extract_layers!r}; expected whole block indices, such as (3, 7, 9)") from error
    chosen = Chosen(pretrained, layers, image_tower_pretrained)
    model = _load_folder(path, chosen) if path.is_dir() else _load_file(path, chosen)
    if image_tower_pretrained is not None and model.config.image_tower is None:
        raise ClipSegError(f"{path}: has no image tower but CLIP's; leave image_tower_pretrained out")
    try:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = model.to(torch.device(device)).eval()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ClipSegError(
            f"device={str(device)!r} cannot be used ({one_line(error)[:160]}); choose cpu, or cuda where there is one"
        ) from error
    return model.at_precision(precision)


def trained_model(model: CLIPSeg | str | os.PathLike[str]) -> CLIPSeg:
    """A model in evaluation mode: what `load` takes is loaded, what torch has wrapped (`DataParallel`, `compile`) is unwrapped.

    Raises:
        ClipSegError: neither.
    """
    if isinstance(model, (str, os.PathLike)):
        return load(model)
    found = getattr(model, "module", getattr(model, "_orig_mod", model))
    if not isinstance(found, CLIPSeg):
        raise ClipSegError(f"model of type {type(model).__name__}; expected what clipseg.load returns, or what it takes")
    return found.eval()


def _locate(x: str | os.PathLike[str]) -> Path:
    if not isinstance(x, (str, os.PathLike)):
        raise ClipSegError(f"a model to load of type {type(x).__name__}; expected weights, a run folder, a hub name or mini")
    if x == "mini":
        if not MINI_PATH.is_dir():
            raise ClipSegError(f"{MINI_PATH}: the bundled model is missing; install the package anew")
        return MINI_PATH
    path = Path(x).expanduser()
    if os.path.exists(path):  # False for a name that no file can have
        return path
    if isinstance(x, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", x) and path.suffix not in WEIGHT_SUFFIXES:
        return _download(x)
    raise ClipSegError(
        f"{x}: no such file or folder; expected weights, a run folder, a hub name (CIDAS/clipseg-rd64-refined) or mini"
    )


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
    try:
        with quiet_hub():
            folder = Path(snapshot_download(name, allow_patterns=wanted))
            if not any(folder.glob("*.safetensors")):
                pickled = ["config.json", "preprocessor_config.json", "pytorch_model*"]
                folder = Path(snapshot_download(name, allow_patterns=pickled))
        return folder
    except Exception as error:  # huggingface_hub, httpx and the operating system each raise their own
        raise ClipSegError(
            f"{name}: no local file or folder, and not to be had from the hub ({type(error).__name__}): download config.json "
            f"and model.safetensors from https://huggingface.co/{name} into a folder and name that folder"
        ) from error


def _load_folder(folder: Path, chosen: Chosen) -> CLIPSeg:
    if (folder / "checkpoints").is_dir():
        return _load_file(folder / "checkpoints" / "last.pt", chosen)
    if is_transformers_folder(folder):
        if chosen.pretrained is not None:
            raise ClipSegError(f"{folder}: holds a CLIP of its own; leave pretrained={str(chosen.pretrained)!r} out")
        from clipseg.network.formats.transformers import load_transformers

        return load_transformers(folder, chosen.extract_layers)
    if not (folder / "config.json").is_file():
        raise ClipSegError(
            f"{folder}: has neither checkpoints/ nor config.json; expected a run folder, a release or transformers' layout"
        )
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or {key: config.get(key) for key in RELEASE} != RELEASE:
        raise ClipSegError(
            f"{folder / 'config.json'}: neither a release (version {RELEASE['version']}) nor a CLIPSeg of transformers"
        )
    weights = folder / "model.safetensors"
    return _load_ours(config | {"model": read_weights(weights)}, weights, chosen)


def _load_file(path: Path, chosen: Chosen) -> CLIPSeg:
    if path.name in FOLDER_NAMES and (path.parent / "config.json").is_file():
        return _load_folder(path.parent, chosen)
    state = read_weights(path)
    if not isinstance(state, dict):
        raise ClipSegError(f"{path}: holds a {type(state).__name__}, not a state dict of named tensors")
    if "format" not in state:
        from clipseg.network.formats.authors import load_authors

        return load_authors(state, path, chosen.pretrained, chosen.extract_layers)
    if {key: state.get(key) for key in CHECKPOINT} != CHECKPOINT:
        raise ClipSegError(
            f"{path}: no checkpoint of train.py of version {CHECKPOINT['version']}; load it with the version that wrote it"
        )
    check_archive(path)
    return _load_ours(state, path, chosen)


def _load_ours(state: Mapping[str, Any], path: Path, chosen: Chosen) -> CLIPSeg:
    """A checkpoint or a release: the decoder, how it was built, and the checksum of the CLIP it was trained on."""
    config = _model_config(state.get("model_config"), path)
    if chosen.pretrained is not None:
        config = dataclasses.replace(config, pretrained=str(chosen.pretrained))
    if chosen.image_tower_pretrained is not None and config.image_tower is not None:
        config = dataclasses.replace(config, image_tower_pretrained=str(chosen.image_tower_pretrained))
    layers = chosen.extract_layers
    if layers is not None:
        if len(layers) != len(config.extract_layers):
            raise ClipSegError(
                f"{path}: its decoder takes {len(config.extract_layers)} read-outs, extract_layers={layers} names {len(layers)}"
            )
        config = dataclasses.replace(config, extract_layers=layers)
    backbone = build_backbone(config)
    if backbone.checksum() != state.get("backbone_checksum"):
        raise ClipSegError(
            f"{path}: trained on another CLIP than {config.backbone} with pretrained={config.pretrained!r}"
            f"{_tower_named(config)}; name the weights it was trained on with pretrained="
            f"{' or image_tower_pretrained=' if config.image_tower else ''} (random weights can be drawn again only by the "
            "torch version that drew them)"
        )
    model = CLIPSeg(backbone, config)
    tensors = state.get("model")
    if not isinstance(tensors, Mapping):
        raise ClipSegError(f"{path}: holds no decoder weights; expected a state dict under 'model'")
    if "calibration" in state:
        from clipseg.network.calibration import read_calibration

        model.calibration = read_calibration(state["calibration"], path)
    model.decoder.load_state_dict(check_tensors(tensors, shapes_of(model.decoder), source=path), strict=True)
    return model


def _tower_named(config: ModelConfig) -> str:
    if config.image_tower is None:
        return ""
    return f" or another {config.image_tower} than of image_tower_pretrained={config.image_tower_pretrained!r}"


def _model_config(fields: Any, path: Path) -> ModelConfig:
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    if not isinstance(fields, dict) or not fields.keys() <= known:
        unknown = ", ".join(sorted(map(str, fields.keys() - known))) if isinstance(fields, dict) else "it is missing"
        raise ClipSegError(f"{path}: no model_config of this version ({unknown}); load it with the version that wrote it")
    try:
        return ModelConfig(**fields)
    except ClipSegError as error:
        raise ClipSegError(f"{path}: model_config: {error}") from error


def save_release(model: CLIPSeg, folder: str | Path, *, card: str, extra: Mapping[str, Any]) -> None:
    """Write the decoder alone, a few MB to publish, so that `load` takes the folder.

    Args:
        model: the trained model. The CLIP it stands on is not written, only named, with its checksum.
        folder: gets `model.safetensors`, `README.md` and, last, `config.json`: a folder that has it is whole.
        card: the text of README.md, the model card.
        extra: what else config.json shall hold, such as `metrics`: plain JSON values.
    """
    folder = Path(folder)
    config = dataclasses.asdict(model.config)
    for key in ("pretrained", "image_tower_pretrained"):
        if isinstance(config[key], str) and Path(config[key]).exists():
            # A path of this machine helps nobody else; the checksum tells whether a file is the right one.
            config[key] = Path(config[key]).name
    content = {**RELEASE, "model_config": config, "backbone_checksum": model.backbone.checksum()}
    assert not content.keys() & extra.keys(), "extra must not hide what the release says of itself"
    with naming_disk_errors(folder):
        (folder / "config.json").unlink(missing_ok=True)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.decoder.state_dict().items()}
    with atomic_write(folder / "model.safetensors") as file:
        file.write(to_safetensors(tensors, {"format": "pt"}))
    with atomic_write(folder / "README.md", "w") as file:
        file.write(card)
    write_json(folder / "config.json", content | dict(extra))
