"""Files of weights -> named tensors, or one line that says what is wrong. Nothing here runs code that a file brings along."""

import contextlib
import logging
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor

from clipseg.errors import ClipSegError, listed, one_line
from clipseg.files import read_json

# The backbone that is whatever CLIP a folder in transformers' layout holds.
UNNAMED = "transformers"
# The names under which a folder in transformers' layout keeps its weights, safetensors first.
FOLDER_NAMES = ("model.safetensors", "pytorch_model.bin")


def read_weights(path: Path) -> Any:
    """Read a weights file: a dict of tensors (safetensors), or the plain data that torch.save wrote.

    Raises:
        ClipSegError: missing, damaged, or a pickle that asks for more than tensors and plain Python values.
    """
    if not path.is_file():
        raise ClipSegError(f"{path}: no such weights file")
    check_unpacked_size(path)
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    # Damaged bytes fail in whatever way the readers of torch and safetensors meet them.
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError):
            # Torch's own message advises to load it all the same; that advice is not for passing on.
            reason = "refused: no plain tensors written by torch.save, and any other pickle could run code when read"
        else:
            reason = f"not readable as weights: {one_line(error)[:160]}"
        raise ClipSegError(f"{path}: {reason}; fetch or write it again, as safetensors or a state dict") from error


def check_unpacked_size(path: Path) -> None:
    """Refuse an archive of weights that holds more than its own size: torch.save compresses nothing.

    Raises:
        ClipSegError: a decompression bomb, or an archive that was packed once more.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return  # no archive, or a damaged one; torch says so
    packed = path.stat().st_size
    if unpacked > 2 * packed:
        raise ClipSegError(
            f"{path}: refused as a decompression bomb: {unpacked:,} bytes from {packed:,}; save it again by torch.save"
        )


def check_archive(path: Path) -> None:
    """Compare what a file of torch.save holds with the checksums in it, at which torch itself does not look.

    Raises:
        ClipSegError: bytes have changed since it was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    # Damaged headers fail in many ways.
    except Exception as error:
        raise ClipSegError(f"{path}: not a checkpoint, or damaged ({one_line(error)[:160]}); take another") from error
    if damaged is not None:
        raise ClipSegError(f"{path}: damaged, the checksum of {damaged} is wrong; take another")


def read_folder_weights(folder: Path) -> dict[str, Any]:
    """The tensors of a folder in transformers' layout, in one file or in the shards that an index names."""
    for name in FOLDER_NAMES:
        if (folder / name).is_file():
            return _mapping(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index)
    raise ClipSegError(f"{folder}: holds no weights; expected {' or '.join(FOLDER_NAMES)}, or an index of their shards")


def _read_shards(index: Path) -> dict[str, Any]:
    content = read_json(index)
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(name, str) and Path(name).name == name for name in files.values()):
        raise ClipSegError(f"{index}: expected a 'weight_map' of keys to the names of files beside it; fetch the file again")
    state: dict[str, Any] = {}
    for name in sorted(set(files.values())):
        shard = _mapping(index.parent / name)
        named = {key for key, file in files.items() if file == name}
        if shard.keys() != named:
            raise ClipSegError(
                f"{index.parent / name}: keys differ from its index: {listed(sorted(shard.keys() ^ named))}; fetch both again"
            )
        state |= shard
    return state


def _mapping(path: Path) -> dict[str, Any]:
    state = read_weights(path)
    if not isinstance(state, dict):
        raise ClipSegError(f"{path}: holds a {type(state).__name__}, not a state dict of named tensors")
    return state


def check_tensors(state: Mapping[str, Any], shapes: Mapping[str, torch.Size], *, source: object) -> dict[str, Tensor]:
    """The tensors as float32, once keys, shapes and values are what they must be; every fault is listed in one error.

    Args:
        state: what a file held.
        shapes: all keys there must be, no more and no fewer, with their shapes.
        source: the file, for the error.
    """
    faults = []
    if missing := [key for key in shapes if key not in state]:
        faults.append(f"missing {listed(missing)}")
    if extra := [str(key) for key in state if key not in shapes]:
        faults.append(f"unknown {listed(extra)}")
    present = [key for key in shapes if key in state]
    if bad := [key for key in present if not is_plain(state[key])]:
        faults.append(f"no plain float tensor {listed(bad)}")
    if wrong := [
        f"{key} {list(state[key].shape)} instead of {list(shapes[key])}"
        for key in present
        if key not in bad and state[key].shape != shapes[key]
    ]:
        faults.append(f"wrong shape {listed(wrong)}")
    if not faults and (wild := [key for key in present if not torch.isfinite(state[key]).all()]):
        faults.append(f"NaN or infinite {listed(wild)}")
    if faults:
        raise ClipSegError(f"{source}: not the weights of this model: {'; '.join(faults)}")
    return {key: state[key].float() for key in shapes}


def is_plain(value: Any) -> TypeGuard[Tensor]:
    """Whether a value from a file is a tensor of floats whose every number is in the file."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
        return False
    # A view with stride 0 could claim any shape, and fill the memory once it is copied.
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def shapes_of(module: torch.nn.Module) -> dict[str, torch.Size]:
    """The keys and shapes of a module's state dict."""
    return {key: tensor.shape for key, tensor in module.state_dict().items()}


@contextlib.contextmanager
def plain_defaults() -> Iterator[None]:
    """Build in float32 on the CPU, whatever `torch.set_default_dtype` and `set_default_device` say."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Let the Hugging Face hub's client report errors alone, and take what is cached at once where the hub does not answer.

    Left to itself it tries again for a quarter of a minute a file, in 20 lines.
    """
    from huggingface_hub import constants, get_session

    logger = logging.getLogger("huggingface_hub")
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.ERROR)
    try:
        try:
            get_session().head(constants.ENDPOINT, timeout=10)
        except Exception:  # of whichever HTTP client it was built on; and where it was told that it is offline
            constants.HF_HUB_OFFLINE = True
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logger.setLevel(level)


def is_transformers_folder(path: Path) -> bool:
    """Whether `path` is a folder whose config.json calls itself a CLIPSeg or a CLIP of transformers."""
    if not os.path.isfile(path / "config.json"):
        return False
    config = read_json(path / "config.json")
    return isinstance(config, dict) and config.get("model_type") in ("clipseg", "clip")
