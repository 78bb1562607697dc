"""config.json of transformers' CLIPSeg and CLIP -> sizes of an open_clip model, or one line on what we do not compute."""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from clipseg.errors import ClipSegError
from clipseg.files import read_json
from clipseg.network.tensor_files import UNNAMED

# What a file leaves out, transformers' configuration classes fill in.
VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
DECODER_DEFAULTS = {
    "extract_layers": [3, 6, 9],
    "reduce_dim": 64,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 2048,
    "conditional_layer": 0,
    "use_complex_transposed_convolution": False,
}
# What this package's network computes and no setting changes. `decoder_hidden_act` is not among them: transformers'
# decoder computes ReLU whatever it says, as the paper's does. End of text is 2 in older files: "the largest token id".
FIXED: dict[str, tuple[Any, ...]] = {
    "decoder_num_attention_heads": (4,),
    "decoder_intermediate_size": (2048,),
    "conditional_layer": (0,),
    "num_channels": (3,),
    "layer_norm_eps": (1e-5,),
    "vocab_size": (49408,),
    "eos_token_id": (2, 49407),
    "hidden_act": ("quick_gelu", "gelu"),
    "use_complex_transposed_convolution": (False, True),
}
# Models whose name says their sizes; any other is rebuilt from its folder, as the backbone "transformers".
NAMED = ("ViT-B-16-quickgelu", "ViT-B-32-quickgelu", "ViT-L-14-quickgelu", "ViT-B-16", "ViT-B-32", "ViT-L-14")


@dataclass(frozen=True)
class ClipSizes:
    """All that `open_clip.model.CLIP` is built from."""

    embed_dim: int
    vision: CLIPVisionCfg
    text: CLIPTextCfg
    quick_gelu: bool

    def least_parameters(self) -> int:
        """A lower bound of the model's parameters: the blocks' matrices and the positions of both towers."""
        positions = (int(self.vision.image_size) // self.vision.patch_size) ** 2 * self.vision.width
        positions += self.text.context_length * self.text.width
        blocks = (tower.layers * (4 + 2 * tower.mlp_ratio) * tower.width**2 for tower in (self.vision, self.text))
        return int(positions + sum(blocks))

    def name(self) -> str:
        """The open_clip model of these sizes, or "transformers" where none of the known ones has them."""
        return next((name for name in NAMED if named_sizes(name) == self), UNNAMED)


def named_sizes(name: str) -> ClipSizes:
    """The sizes of an open_clip model."""
    config = open_clip.get_model_config(name)
    assert config is not None
    vision, text = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    return ClipSizes(config["embed_dim"], vision, text, config.get("quick_gelu", False))


@dataclass(frozen=True)
class FolderConfig:
    """The configuration of a folder in transformers' layout; the decoder's fields are None where it holds a CLIP alone."""

    sizes: ClipSizes
    extract_layers: tuple[int, ...] | None = None
    reduce_dim: int | None = None
    head: str | None = None

    @property
    def with_decoder(self) -> bool:
        return self.head is not None


def read_folder_config(folder: Path) -> FolderConfig:
    """Read and check a folder's config.json.

    Raises:
        ClipSegError: another kind of model, a value of the wrong kind, or a setting that this package does not compute.
    """
    source = folder / "config.json"
    config = read_json(source)
    if not isinstance(config, dict) or config.get("model_type") not in ("clipseg", "clip"):
        raise ClipSegError(f"{source}: no config of transformers' CLIPSeg or CLIP; expected model_type clipseg or clip")
    vision, text = (
        _section(config, "vision_config", VISION_DEFAULTS, source),
        _section(config, "text_config", TEXT_DEFAULTS, source),
    )
    sizes = _clip_sizes(_size(config, "projection_dim", source, default=512), vision, text, source)
    if config["model_type"] == "clip":
        return FolderConfig(sizes)
    decoder = DECODER_DEFAULTS | {key: config[key] for key in DECODER_DEFAULTS if key in config}
    _check_fixed(decoder, source)
    layers = decoder["extract_layers"]
    if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
        raise ClipSegError(
            f"{source}: extract_layers={reprlib.repr(layers)}; expected a list of block indices such as [3, 6, 9]"
        )
    head = "refined" if decoder["use_complex_transposed_convolution"] else "plain"
    return FolderConfig(sizes, tuple(layers), _size(decoder, "reduce_dim", source), head)


def _section(config: dict[str, Any], key: str, defaults: dict[str, Any], source: Path) -> dict[str, Any]:
    """The settings of one tower; `*_config_dict`, which older files have, wins over `*_config`, as in transformers."""
    given: dict[str, Any] = {}
    for part in (config.get(key), config.get(f"{key}_dict")):
        if part is not None and not isinstance(part, dict):
            raise ClipSegError(f"{source}: {key} is a {type(part).__name__}; expected an object")
        given |= part or {}
    section = defaults | {name: given[name] for name in defaults if name in given}
    _check_fixed(section, source)
    return section


def _check_fixed(settings: dict[str, Any], source: Path) -> None:
    for key, allowed in FIXED.items():
        if key in settings and settings[key] not in allowed:
            wanted = " or ".join(str(value) for value in allowed)
            raise ClipSegError(
                f"{source}: {key}={reprlib.repr(settings[key])} is not what CLIPSeg computes here; expected {wanted}"
            )


def _clip_sizes(embed_dim: int, vision: dict[str, Any], text: dict[str, Any], source: Path) -> ClipSizes:
    if vision["hidden_act"] != text["hidden_act"]:
        raise ClipSegError(
            f"{source}: hidden_act differs between the towers ({vision['hidden_act']}, {text['hidden_act']}); expected one"
        )
    patch, image = _size(vision, "patch_size", source), _size(vision, "image_size", source)
    if image % patch:
        raise ClipSegError(f"{source}: image_size={image} is not a multiple of patch_size={patch}")
    vision_width, vision_heads, vision_ratio = _tower(vision, source)
    text_width, text_heads, text_ratio = _tower(text, source)
    return ClipSizes(
        embed_dim,
        CLIPVisionCfg(
            layers=_size(vision, "num_hidden_layers", source, most=256),
            width=vision_width,
            head_width=vision_width // vision_heads,
            mlp_ratio=vision_ratio,
            patch_size=patch,
            image_size=image,
        ),
        CLIPTextCfg(
            context_length=_size(text, "max_position_embeddings", source),
            width=text_width,
            heads=text_heads,
            layers=_size(text, "num_hidden_layers", source, most=256),
            mlp_ratio=text_ratio,
        ),
        quick_gelu=vision["hidden_act"] == "quick_gelu",
    )


def _tower(section: dict[str, Any], source: Path) -> tuple[int, int, float]:
    """Width, heads, and feed-forward width over width."""
    width, heads, hidden = (_size(section, key, source) for key in ("hidden_size", "num_attention_heads", "intermediate_size"))
    if width % heads:
        raise ClipSegError(f"{source}: hidden_size={width} cannot be shared by num_attention_heads={heads}")
    ratio = hidden / width
    if int(width * ratio) != hidden:
        raise ClipSegError(
            f"{source}: intermediate_size={hidden} is no multiple of hidden_size={width} that open_clip can build"
        )
    return width, heads, ratio


def _size(section: dict[str, Any], key: str, source: Path, *, default: int | None = None, most: int = 16384) -> int:
    value = section.get(key, default)
    # The bound keeps a damaged config from filling the memory; the largest CLIPs stay below it.
    if type(value) is not int or not 1 <= value <= most:
        raise ClipSegError(f"{source}: {key}={reprlib.repr(value)}; expected a whole number from 1 to {most}")
    return value
