"""The bundled CLIP: an open_clip model of three million parameters whose weights ship with the package.

It stands in for CLIP where CLIP's weights cannot be had: same class, same read-outs after blocks 3, 7 and 9 of 12, same patch
size. It has seen nothing but synthetic scenes (`python -m clipseg.tools.train_mini_clip` trains it) and knows 8 kinds of
things, 8 colours, 4 patterns, 3 sizes and 4 relations; it tells other words apart, without knowing what they mean. It is no
substitute for CLIP.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipseg.errors import ClipSegError
from clipseg.files import atomic_write

MINI_CLIP_PATH = Path(__file__).parents[1] / "assets" / "mini_clip.safetensors"

EMBED_DIM = 128
VISION_CONFIG = {"image_size": 112, "patch_size": 16, "width": 128, "layers": 12, "head_width": 32}
TEXT_CONFIG = {"context_length": 32, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 3}

UNTAUGHT_SCALE = 2**-5  # a standard deviation of 0.018, near the 0.02 that CLIP starts from

_EMBEDDING = "token_embedding.weight"
_TOKEN_IDS = "token_ids"


def load_mini_clip(
    path: Path | None = None, *, pretrained: bool = True, seed: int = 0
) -> tuple[CLIP, Callable[[list[str]], Tensor]]:
    """Build the bundled CLIP.

    Args:
        path: weights that `save_mini_clip` wrote; None for those of the package.
        pretrained: False leaves the weights random.
        seed: of the random weights. The global random state is left as it was.

    Returns:
        The float32 model in `eval()` mode, and its tokenizer: N texts -> int64 `[N, 32]`, longer texts cut.

    Raises:
        ClipSegError: the file is missing, damaged, or holds other tensors than this model's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(EMBED_DIM, CLIPVisionCfg(**VISION_CONFIG), CLIPTextCfg(**TEXT_CONFIG), quick_gelu=True)
    if pretrained:
        weights = _read_weights(path or MINI_CLIP_PATH, model.state_dict())
        model.load_state_dict(weights, strict=True)
    return model.eval(), create_tokenizer()


def create_tokenizer() -> Callable[[list[str]], Tensor]:
    """The bundled CLIP's tokenizer: N texts -> int64 `[N, 32]`, longer texts cut."""
    return SimpleTokenizer(context_length=TEXT_CONFIG["context_length"])


def _read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors as float32, the token embedding spread to all its rows; keys and shapes are those of `expected`."""
    try:
        with safe_open(str(path), framework="pt") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise ClipSegError(
            f"{path}: no such file; install the package anew, or write it by python -m clipseg.tools.train_mini_clip"
        ) from error
    except (SafetensorError, OSError) as error:
        raise ClipSegError(f"{path}: damaged or no safetensors file ({error}); install the package anew") from error
    token_ids, rows = found.pop(_TOKEN_IDS, None), found.get(_EMBEDDING)
    if token_ids is not None and rows is not None:
        found[_EMBEDDING] = _spread(rows, token_ids, expected[_EMBEDDING], path)
    wrong = {key for key in expected.keys() | found.keys() if key not in expected or key not in found}
    wrong |= {key for key in expected.keys() & found.keys() if expected[key].shape != found[key].shape}
    if wrong:
        raise ClipSegError(
            f"{path}: not the bundled CLIP, {len(wrong)} tensors differ (first: {min(wrong)}); install the package anew"
        )
    return {key: value.float() for key, value in found.items()}


def _spread(rows: Tensor, token_ids: Tensor, table: Tensor, path: Path) -> Tensor:
    ids = token_ids.long()
    if ids.ndim != 1 or rows.shape != (len(ids), table.shape[1]) or bool(((ids < 0) | (ids >= len(table))).any()):
        raise ClipSegError(f"{path}: {_TOKEN_IDS} do not fit {_EMBEDDING}; install the package anew")
    # Words it was never taught get embeddings of their own, so that they are told apart at least. Drawn as integers: they are
    # the same on every machine, to the last bit, and so is the model's checksum.
    noise = torch.randint(-128, 128, table.shape, generator=torch.Generator().manual_seed(0))
    return (noise * (UNTAUGHT_SCALE / 128)).index_copy_(0, ids, rows.float())


def save_mini_clip(model: CLIP, path: Path, *, token_ids: list[int], metadata: Mapping[str, Any]) -> None:
    """Write the weights as float16 safetensors, with only the embedding rows of `token_ids`; `metadata` is kept as JSON."""
    tensors = {key: value.detach().half().contiguous() for key, value in model.state_dict().items()}
    tensors[_TOKEN_IDS] = torch.tensor(token_ids, dtype=torch.int32)
    tensors[_EMBEDDING] = tensors[_EMBEDDING][tensors[_TOKEN_IDS].long()]
    with atomic_write(path) as file:
        file.write(save(tensors, {"mini_clip": json.dumps(metadata)}))
