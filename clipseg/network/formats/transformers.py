"""A folder in transformers' layout <-> a whole model: CLIP, decoder, and the preprocessing of images; without transformers."""

import json
import reprlib
from pathlib import Path
from typing import Any

from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from clipseg.errors import ClipSegError
from clipseg.files import atomic_write, naming_disk_errors, read_json, write_json
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.config import ModelConfig
from clipseg.network.formats.renaming import Table, decoder_table, from_theirs, to_theirs
from clipseg.network.formats.transformers_config import read_folder_config
from clipseg.network.formats.transformers_layout import build_clip, clip_table, clip_weights
from clipseg.network.model import CLIPSeg
from clipseg.network.preprocess import MEAN, STD
from clipseg.network.tensor_files import read_folder_weights, shapes_of

# open_clip's names of the two special tokens beside transformers'.
SPECIAL_TOKENS = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
CLIP_DROPPED = {"clip.": "read into the backbone"}


def load_transformers(folder: Path, extract_layers: tuple[int, ...] | None) -> CLIPSeg:
    """The whole model of a folder that CLIPSegForImageSegmentation's `save_pretrained` wrote.

    Args:
        folder: config.json and the weights, in one file or sharded.
        extract_layers: read-outs other than those config.json says.

    Raises:
        ClipSegError: a CLIP without decoder, a setting we do not compute, or weights that do not fit the config.
    """
    found = read_folder_config(folder)
    if found.head is None or found.reduce_dim is None or found.extract_layers is None:
        raise ClipSegError(
            f"{folder}: a CLIP without CLIPSeg's decoder; it can be the backbone of a new model, pretrained={folder}"
        )
    layers = extract_layers or found.extract_layers
    if len(layers) != len(found.extract_layers):
        raise ClipSegError(
            f"{folder}: its decoder takes {len(found.extract_layers)} read-outs, extract_layers={layers} names {len(layers)}"
        )
    state = read_folder_weights(folder)
    clip = build_clip(found.sizes, state, source=folder)
    clip.load_state_dict(clip_weights(state, clip, config=found, source=folder), strict=True)
    name = found.sizes.name()
    config = ModelConfig(
        backbone=name,
        pretrained=str(folder),
        extract_layers=layers,
        reduce_dim=found.reduce_dim,
        head=found.head,
        image_size=_image_size(folder, clip.visual.patch_size[0]),
    )
    model = CLIPSeg(CLIPBackbone(clip, SimpleTokenizer(context_length=clip.context_length), name=name), config)
    table = decoder_table(len(layers), found.head)
    decoder = from_theirs(state, table, shapes=shapes_of(model.decoder), dropped=CLIP_DROPPED, source=folder)
    model.decoder.load_state_dict(decoder, strict=True)
    return model


def _image_size(folder: Path, patch_size: int) -> int:
    """The side to which the folder's processor squashes images, where it has one; else the paper's 352."""
    for name, section in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if not (folder / name).is_file():
            continue
        content = read_json(folder / name)
        content = content.get(section) if section and isinstance(content, dict) else content
        size = content.get("size") if isinstance(content, dict) else None
        height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
        if type(height) is not int or height != width or height < 1 or height % patch_size:
            raise ClipSegError(
                f"{folder / name}: size={reprlib.repr(size)}; expected a square whose side is a multiple of the patch size "
                f"{patch_size}"
            )
        return height
    return ModelConfig.image_size


def save_transformers(model: CLIPSeg, folder: str | Path) -> None:
    """Write CLIP, decoder, preprocessing and tokenizer in transformers' layout; the logits there equal ours.

    Args:
        model: with the decoder "clipseg", on a plain CLIP (open_clip's `CLIP` class with a vision transformer).
        folder: gets the weights, the tokenizer's files, preprocessor_config.json and, last, config.json: a folder that has
            it is whole.

    Raises:
        ClipSegError: the layout cannot hold the model, or the folder cannot be written.
    """
    if not isinstance(model, CLIPSeg):
        raise ClipSegError(f"model of type {type(model).__name__}; expected what clipseg.load returns")
    folder = Path(folder)
    config, state = to_transformers(model)
    with naming_disk_errors(folder):
        (folder / "config.json").unlink(missing_ok=True)
    with atomic_write(folder / "model.safetensors") as file:
        file.write(to_safetensors(state, {"format": "pt"}))
    write_json(folder / "preprocessor_config.json", _preprocessor(model.config.image_size))
    _write_tokenizer(folder, model.backbone.clip.context_length)
    write_json(folder / "config.json", config)


def to_transformers(model: CLIPSeg) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The keywords of transformers' CLIPSegConfig, and the state dict of its CLIPSegForImageSegmentation.

    Raises:
        ClipSegError: the layout cannot hold the model.
    """
    clip = _plain_clip(model)
    state = to_theirs(clip.state_dict(), _clip_table(clip))
    state |= to_theirs(model.decoder.state_dict(), decoder_table(len(model.config.extract_layers), model.config.head))
    return _config(model, clip), state


def _clip_table(clip: CLIP) -> Table:
    return clip_table(len(clip.visual.transformer.resblocks), len(clip.transformer.resblocks), "clip.")


def _plain_clip(model: CLIPSeg) -> CLIP:
    """The model's CLIP, once it is sure that the layout holds all of it."""
    clip: Any = model.backbone.clip
    tokenizer: Any = model.backbone.tokenizer
    config = model.config
    if config.image_tower is not None:
        raise ClipSegError(f"image_tower={config.image_tower} has no place in transformers' layout; only CLIP's own has")
    if config.decoder != "clipseg":
        raise ClipSegError(f"decoder={config.decoder} has no place in transformers' layout; only decoder=clipseg has")
    if config.head == "refined" and model.backbone.patch_size != 16:
        raise ClipSegError(f"the refined head of transformers fits patches of 16 pixels alone, not {model.backbone.patch_size}")
    if not isinstance(clip, CLIP) or clip.state_dict().keys() != {entry.ours for entry in _clip_table(clip)}:
        raise ClipSegError(f"backbone {model.backbone.name!r} is no plain CLIP: transformers' layout cannot hold its weights")
    norms = [module for module in clip.modules() if isinstance(module, nn.LayerNorm)]
    square = clip.visual.image_size[0] == clip.visual.image_size[1] and clip.visual.patch_size[0] == clip.visual.patch_size[1]
    if clip.text_pool_type != "argmax" or any(norm.eps != 1e-5 for norm in norms) or not square or _activation(clip) is None:
        raise ClipSegError(
            f"backbone {model.backbone.name!r} computes what transformers' CLIP does not (pooling, norm, shape or activation)"
        )
    if type(tokenizer) is not SimpleTokenizer or clip.vocab_size != len(tokenizer.encoder):
        raise ClipSegError(
            f"backbone {model.backbone.name!r} has a tokenizer other than CLIP's; transformers' layout holds CLIP's alone"
        )
    return clip


def _activation(clip: CLIP) -> str | None:
    towers: list[Any] = [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]
    kinds = {type(block.mlp.gelu) for block in towers}
    return {QuickGELU: "quick_gelu", nn.GELU: "gelu"}.get(kinds.pop()) if len(kinds) == 1 else None


def _config(model: CLIPSeg, clip: CLIP) -> dict[str, Any]:
    visual: Any = clip.visual
    return {
        "architectures": ["CLIPSegForImageSegmentation"],
        "model_type": "clipseg",
        "dtype": "float32",
        "projection_dim": model.backbone.embed_dim,
        "extract_layers": list(model.config.extract_layers),
        "reduce_dim": model.config.reduce_dim,
        "use_complex_transposed_convolution": model.config.head == "refined",
        "conditional_layer": 0,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 2048,
        "decoder_hidden_act": "relu",
        "vision_config": {
            "model_type": "clipseg_vision_model",
            "image_size": visual.image_size[0],
            "patch_size": visual.patch_size[0],
            "num_channels": 3,
        }
        | _tower(clip, visual.transformer.resblocks),
        "text_config": {
            "model_type": "clipseg_text_model",
            "vocab_size": clip.vocab_size,
            "max_position_embeddings": clip.context_length,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            "pad_token_id": 49407,
        }
        | _tower(clip, clip.transformer.resblocks),
    }


def _tower(clip: CLIP, blocks: Any) -> dict[str, Any]:
    return {
        "hidden_size": blocks[0].attn.embed_dim,
        "intermediate_size": blocks[0].mlp.c_fc.out_features,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": blocks[0].attn.num_heads,
        "hidden_act": _activation(clip),
        "layer_norm_eps": 1e-5,
    }


def _preprocessor(image_size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "ViTImageProcessor",
        "processor_class": "CLIPSegProcessor",
        "do_resize": True,
        "size": {"height": image_size, "width": image_size},
        "resample": 2,  # Pillow's bilinear, the nearest there is to the resampling of `prepare_images`
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


def _write_tokenizer(folder: Path, context_length: int) -> None:
    """CLIP's byte-pair encoding from the file that open_clip brings, in the form of transformers' CLIPTokenizer."""
    tokenizer = SimpleTokenizer()
    start, end = SPECIAL_TOKENS.values()
    vocabulary = {SPECIAL_TOKENS.get(token, token): index for token, index in tokenizer.encoder.items()}
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    with atomic_write(folder / "vocab.json", "w") as file:
        json.dump(vocabulary, file, ensure_ascii=False)
    with atomic_write(folder / "merges.txt", "w") as file:
        file.write("\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]) + "\n")
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "processor_class": "CLIPSegProcessor", "model_max_length": context_length}
    write_json(folder / "tokenizer_config.json", settings | special | {"do_lower_case": True, "errors": "replace"})
