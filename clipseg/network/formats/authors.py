"""The authors' state dicts (rd64-uni.pth, rd64-uni-refined.pth, rd16-uni.pth), the decoder alone (docs/paper.md, Sec. 6)."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipseg.errors import ClipSegError
from clipseg.network.clip_weights import load_backbone
from clipseg.network.config import LARGEST_REDUCE_DIM, ModelConfig
from clipseg.network.decoder import build_decoder
from clipseg.network.formats.renaming import AUTHORS, decoder_table, from_theirs
from clipseg.network.formats.transformers_config import read_folder_config
from clipseg.network.model import CLIPSeg
from clipseg.network.tensor_files import is_plain, is_transformers_folder, shapes_of

DROPPED = {"reduce.": "one more projection that the authors' decoder holds and its forward pass never uses"}
# The CLIP a decoder was trained on is not in the file; these are known by their width, embedding and patch size.
KNOWN_BACKBONES = {(768, 512, 16): "ViT-B-16-quickgelu", (768, 512, 32): "ViT-B-32-quickgelu"}
# The authors' quick start builds the model with these read-outs; the published recipe says (3, 7, 9).
DEFAULT_LAYERS = (3, 6, 9)


def load_authors(
    state: Mapping[str, Any], path: Path, pretrained: str | Path | None, layers: tuple[int, ...] | None
) -> CLIPSeg:
    """A model from the authors' decoder weights and a CLIP from elsewhere.

    Args:
        state: what the file held.
        path: the file, for errors.
        pretrained: the CLIP weights, an open_clip tag, a local file or a folder; "openai" by default.
        layers: the read-outs; (3, 6, 9) by default.
    """
    sizes = read_sizes(state, path)
    layers = layers or DEFAULT_LAYERS
    if len(layers) != sizes["depth"]:
        raise ClipSegError(f"{path}: its decoder takes {sizes['depth']} read-outs; name them, such as extract_layers=(3,)")
    # The file is checked before CLIP is fetched.
    table = decoder_table(sizes["depth"], sizes["head"], AUTHORS)
    shapes = shapes_of(build_decoder("clipseg", **sizes, seed=0))
    weights = from_theirs(state, table, shapes=shapes, dropped=DROPPED, source=path)
    source = str(pretrained or "openai")
    backbone = load_backbone(_backbone_name(sizes, path, Path(source).expanduser()), source)
    if any(getattr(backbone, name) != sizes[name] for name in ("width", "embed_dim", "patch_size")):
        raise ClipSegError(f"{path}: does not fit the CLIP of pretrained={source!r}: other width, embedding or patch size")
    config = ModelConfig(
        backbone=backbone.name, pretrained=source, extract_layers=layers, reduce_dim=sizes["reduce_dim"], head=sizes["head"]
    )
    model = CLIPSeg(backbone, config)
    model.decoder.load_state_dict(weights, strict=True)
    return model


def _backbone_name(sizes: Mapping[str, Any], path: Path, folder: Path) -> str:
    if is_transformers_folder(folder):
        return read_folder_config(folder).sizes.name()
    found = KNOWN_BACKBONES.get((sizes["width"], sizes["embed_dim"], sizes["patch_size"]))
    if found is None:
        raise ClipSegError(
            f"{path}: no known CLIP has width {sizes['width']}, embedding {sizes['embed_dim']} and patches of "
            f"{sizes['patch_size']} pixels; name a folder in transformers' layout that holds it with pretrained="
        )
    return found


def read_sizes(state: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Which decoder it is, by its shapes.

    Returns:
        the keyword arguments of `build_decoder`: width, embed_dim, patch_size, depth, reduce_dim, head.

    Raises:
        ClipSegError: no state dict of CLIPSeg's decoder.
    """
    depth = sum(1 for key in state if re.fullmatch(r"reduces\.\d+\.weight", str(key)))
    head = "refined" if "trans_conv.4.weight" in state else "plain"
    reduce_dim, embed_dim = _shape(state, "film_mul.weight", 2, source)
    width = _shape(state, "reduces.0.weight", 2, source)[1]
    upsampling = ["trans_conv.2.weight", "trans_conv.4.weight"] if head == "refined" else ["trans_conv.weight"]
    patch_size = math.prod(_shape(state, key, 4, source)[-1] for key in upsampling)
    # The bounds keep a damaged file from filling the memory.
    known = reduce_dim % 4 == 0 and reduce_dim <= LARGEST_REDUCE_DIM and patch_size in range(2, 65, 2)
    if not known or max(embed_dim, width) > 16384 or depth > 64:
        raise ClipSegError(f"{source}: no CLIPSeg decoder has the sizes D={reduce_dim}, P={patch_size}; fetch the file again")
    return {
        "width": width,
        "embed_dim": embed_dim,
        "patch_size": patch_size,
        "depth": depth,
        "reduce_dim": reduce_dim,
        "head": head,
    }


def _shape(state: Mapping[str, Any], key: str, dimensions: int, source: Path) -> tuple[int, ...]:
    value = state.get(key)
    if not is_plain(value) or value.ndim != dimensions or 0 in value.shape:
        found = ", ".join(str(key) for key in list(state)[:6]) or "nothing"
        raise ClipSegError(f"{source}: no decoder in the authors' layout: {key} is missing or misshapen (found {found}, ...)")
    return tuple(value.shape)
