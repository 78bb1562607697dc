"""The layout of transformers' CLIPSegForImageSegmentation and CLIPModel: its keys beside ours, and the CLIP of such a folder.

One table a part of the model, used in both directions: by `load` and by `save_transformers`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from clipseg.errors import ClipSegError
from clipseg.network.formats.renaming import Rename, Table, from_theirs, linear
from clipseg.network.formats.transformers_config import ClipSizes, FolderConfig, read_folder_config
from clipseg.network.tensor_files import is_plain, read_folder_weights, shapes_of

# Beginnings of keys that are left out, with the reason. Files written by older versions of transformers hold the first two.
CLIP_DROPPED = {
    "text_model.embeddings.position_ids": "a constant, the numbers 0 to context length - 1",
    "vision_model.embeddings.position_ids": "a constant, the numbers 0 to tokens - 1",
}
DECODER_DROPPED = {"decoder.": "no part of CLIP"}
SLACK = 50_000_000  # parameters: where config and weights differ by less, the error that names each tensor says more


def clip_table(vision_layers: int, text_layers: int, prefix: str = "") -> Table:
    """open_clip's keys beside those of `CLIPModel` (with `prefix` "clip.": of CLIPSeg's CLIP)."""
    vision, text = f"{prefix}vision_model", f"{prefix}text_model"
    table = [
        Rename("logit_scale", (f"{prefix}logit_scale",)),
        Rename("visual.class_embedding", (f"{vision}.embeddings.class_embedding",)),
        Rename("visual.conv1.weight", (f"{vision}.embeddings.patch_embedding.weight",)),
        Rename("visual.positional_embedding", (f"{vision}.embeddings.position_embedding.weight",)),
        *linear("visual.ln_pre", f"{vision}.pre_layrnorm"),  # their spelling
        *linear("visual.ln_post", f"{vision}.post_layernorm"),
        Rename("visual.proj", (f"{prefix}visual_projection.weight",), transposed=True),
        Rename("token_embedding.weight", (f"{text}.embeddings.token_embedding.weight",)),
        Rename("positional_embedding", (f"{text}.embeddings.position_embedding.weight",)),
        *linear("ln_final", f"{text}.final_layer_norm"),
        Rename("text_projection", (f"{prefix}text_projection.weight",), transposed=True),
    ]
    for index in range(vision_layers):
        table += _clip_block(f"visual.transformer.resblocks.{index}", f"{vision}.encoder.layers.{index}")
    for index in range(text_layers):
        table += _clip_block(f"transformer.resblocks.{index}", f"{text}.encoder.layers.{index}")
    return table


def _clip_block(ours: str, theirs: str) -> Iterator[Rename]:
    for kind in ("weight", "bias"):
        yield Rename(f"{ours}.attn.in_proj_{kind}", tuple(f"{theirs}.self_attn.{part}_proj.{kind}" for part in "qkv"))
    yield from linear(f"{ours}.attn.out_proj", f"{theirs}.self_attn.out_proj")
    yield from linear(f"{ours}.ln_1", f"{theirs}.layer_norm1")
    yield from linear(f"{ours}.mlp.c_fc", f"{theirs}.mlp.fc1")
    yield from linear(f"{ours}.mlp.c_proj", f"{theirs}.mlp.fc2")
    yield from linear(f"{ours}.ln_2", f"{theirs}.layer_norm2")


def clip_of_folder(folder: Path) -> tuple[CLIP, SimpleTokenizer]:
    """The CLIP of a folder in transformers' layout (a CLIPSeg's or a CLIPModel's), built from the sizes in its config.

    Raises:
        ClipSegError: a config we do not compute, or weights that do not fit it.
    """
    config = read_folder_config(folder)
    state = read_folder_weights(folder)
    clip = build_clip(config.sizes, state, source=folder)
    clip.load_state_dict(clip_weights(state, clip, config=config, source=folder), strict=True)
    return clip, SimpleTokenizer(context_length=clip.context_length)


def build_clip(sizes: ClipSizes, state: Mapping[str, Any], *, source: Path) -> CLIP:
    """An open_clip model of these sizes with weights to be overwritten; the global generator is left as it was.

    Raises:
        ClipSegError: the tensors `state` of the folder `source` are far too few: a damaged config must not fill the memory.
    """
    held = sum(value.numel() for value in state.values() if is_plain(value))
    if sizes.least_parameters() > held + SLACK:
        raise ClipSegError(
            f"{source}: config.json describes a CLIP of over {sizes.least_parameters():,} parameters, but the weights hold "
            f"{held:,}; fetch both again"
        )
    with torch.random.fork_rng(devices=[]):
        return CLIP(sizes.embed_dim, sizes.vision, sizes.text, quick_gelu=sizes.quick_gelu)


def clip_weights(state: dict[str, Any], clip: CLIP, *, config: FolderConfig, source: Path) -> dict[str, Tensor]:
    """A folder's tensors -> CLIP's under open_clip's keys, checked against `clip`; a decoder beside them has its own table."""
    prefix = "clip." if config.with_decoder else ""
    table = clip_table(len(clip.visual.transformer.resblocks), len(clip.transformer.resblocks), prefix)
    dropped = {f"{prefix}{start}": reason for start, reason in CLIP_DROPPED.items()}
    if config.with_decoder:
        dropped |= DECODER_DROPPED
    return from_theirs(state, table, shapes=shapes_of(clip), dropped=dropped, source=source)
