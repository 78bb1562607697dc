"""Which CLIP: a name and its weights -> an open_clip model and its tokenizer, or one line that says what is missing."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP
from torch import nn

# The bundled CLIP and foreign layouts are imported where they are met.
from clipseg.errors import ClipSegError, listed, one_line
from clipseg.files import read_json
from clipseg.network.backbone import CLIPBackbone, Tokenizer
from clipseg.network.tensor_files import UNNAMED, is_transformers_folder, plain_defaults, quiet_hub, read_folder_weights

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


@plain_defaults()
def load_backbone(name: str, pretrained: str | Path | None, *, seed: int = 0) -> CLIPBackbone:
    """A frozen CLIP by name.

    Args:
        name: an open_clip model name, such as "ViT-B-16-quickgelu"; "mini", the bundled CLIP of the synthetic data set; or
            "transformers", whatever CLIP the folder `pretrained` holds.
        pretrained: an open_clip tag ("openai"), a local weights file or a folder that holds one, in open_clip's layout or in
            transformers' (CLIPModel, CLIPSeg), or None for random weights.
        seed: of the random weights; they are the same for the same seed, whatever was drawn before.

    Raises:
        ClipSegError: an unknown name or tag; weights that cannot be had or do not fit; an activation other than the weights
            were trained with.
    """
    if name == "mini":
        if pretrained not in (None, "mini"):
            raise ClipSegError(
                f"backbone 'mini' has one set of weights, pretrained=mini (or null for random), not {str(pretrained)!r}"
            )
        from clipseg.network.mini_clip import load_mini_clip

        clip, tokenizer = load_mini_clip(pretrained=pretrained is not None, seed=seed)
        return CLIPBackbone(clip, tokenizer, name=name)
    folder = Path(pretrained or "").expanduser()
    if name == UNNAMED:
        if pretrained is None or not is_transformers_folder(folder):
            raise ClipSegError(
                f"backbone {name!r} is built from a folder in transformers' layout; name it by pretrained=, not {pretrained!r}"
            )
        from clipseg.network.formats.transformers_layout import clip_of_folder

        clip, tokenizer = clip_of_folder(folder)
        return CLIPBackbone(clip, tokenizer, name=name)
    clip, tokenizer = _build(name, seed)
    if pretrained is not None and is_transformers_folder(folder):
        _load_transformers(name, clip, folder)
    elif pretrained is not None:
        _load_strictly(clip, find_weights(name, pretrained))
    return CLIPBackbone(clip, tokenizer, name=name)


def _load_transformers(name: str, clip: nn.Module, folder: Path) -> None:
    from clipseg.network.formats.transformers_config import named_sizes, read_folder_config
    from clipseg.network.formats.transformers_layout import clip_weights

    config = read_folder_config(folder)
    wanted = bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))
    _check_activation(name, str(folder), wanted, trained=config.sizes.quick_gelu)
    if not isinstance(clip, CLIP) or named_sizes(name) != config.sizes:
        raise ClipSegError(f"{folder}: holds a CLIP of other sizes than {name}; use backbone {config.sizes.name()!r}")
    clip.load_state_dict(clip_weights(read_folder_weights(folder), clip, config=config, source=folder), strict=True)


def _build(name: str, seed: int) -> tuple[nn.Module, Tokenizer]:
    if open_clip.get_model_config(name) is None:
        raise ClipSegError(f"backbone {name!r} is not an open_clip model; `open_clip.list_models()` names them, or use 'mini'")
    with torch.random.fork_rng(devices=[]), _without_open_clip_log():
        torch.manual_seed(seed)
        try:
            return open_clip.create_model(name, pretrained_text=False), open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ImportError) as error:
            raise ClipSegError(f"backbone {name!r} cannot be built: {one_line(error)}") from error


@contextlib.contextmanager
def _without_open_clip_log() -> Iterator[None]:
    """open_clip warns on the root logger that a model has no weights yet; here that is on purpose."""
    keep = lambda record: "open_clip" not in record.pathname  # noqa: E731
    logging.getLogger().addFilter(keep)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(keep)


def find_weights(name: str, pretrained: str | Path) -> Path:
    """The weights file that `pretrained` means for the model `name`, downloaded by open_clip (checksum and all) where it is
    a tag.

    Raises:
        ClipSegError: no such file or tag, no network and nothing cached, or weights trained with another activation.
    """
    config = open_clip.get_model_config(name)
    assert config is not None
    wanted = bool(config.get("quick_gelu", False))
    path = Path(pretrained).expanduser()
    if os.path.exists(path):  # False for a name that no file can have
        file = _weights_in(path)
        _check_activation(name, str(path), wanted, trained=_activation_of(file))
        return file
    tags = open_clip.list_pretrained_tags_by_model(name)
    if str(pretrained) not in tags:
        raise ClipSegError(
            f"pretrained={str(pretrained)!r} is no file, no folder and no tag of {name} ({', '.join(tags) or 'it has none'})"
        )
    entry = open_clip.get_pretrained_cfg(name, str(pretrained))
    _check_activation(name, f"tag {pretrained!r}", wanted, trained=bool(entry.get("quick_gelu", False)))
    try:
        with _without_open_clip_log(), quiet_hub():
            return Path(open_clip.download_pretrained(entry))
    except Exception as error:  # urllib, ssl, huggingface_hub and httpx each raise their own
        source = f"https://huggingface.co/{entry['hf_hub'].rstrip('/')}" if entry.get("hf_hub") else entry.get("url")
        raise ClipSegError(
            f"the {pretrained!r} weights of {name} are not cached and cannot be downloaded: fetch open_clip_model.safetensors "
            f"(or the .bin) from {source} and name the file with model.pretrained=PATH (pretrained=PATH in Python)"
        ) from error


def _weights_in(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(
        (file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES), key=lambda file: WEIGHT_SUFFIXES.index(file.suffix)
    )
    if not files:
        raise ClipSegError(f"{path}: holds no weights file ({', '.join(WEIGHT_SUFFIXES)})")
    if len(files) > 1 and files[0].suffix == files[1].suffix:
        raise ClipSegError(f"{path}: holds several weights files ({', '.join(file.name for file in files)}); name one of them")
    return files[0]


def _activation_of(file: Path) -> bool | None:
    """Whether a local file's weights were trained with QuickGELU, where its neighbour or its name tell."""
    config = file.parent / "open_clip_config.json"
    if config.is_file():
        content = read_json(config)
        model = content.get("model_cfg") if isinstance(content, dict) else None
        if not isinstance(model, dict):
            raise ClipSegError(f"{config}: has no 'model_cfg' as open_clip writes it; fetch it again, or remove it")
        return bool(model.get("quick_gelu", False))
    return True if "openai" in str(file.resolve()).lower() else None


def _check_activation(name: str, weights: str, wanted: bool, *, trained: bool | None) -> None:
    if trained is None or trained == wanted:
        return
    other = name.removesuffix("-quickgelu") if wanted else f"{name}-quickgelu"
    uses, had = ("QuickGELU", "GELU") if wanted else ("GELU", "QuickGELU")
    raise ClipSegError(f"{name} computes {uses}, but the weights of {weights} were trained with {had}; use backbone {other!r}")


def _load_strictly(clip: nn.Module, path: Path) -> None:
    with warnings.catch_warnings(), _without_open_clip_log():
        warnings.simplefilter("ignore")
        try:
            open_clip.load_checkpoint(clip, str(path), strict=True, weights_only=True, device="cpu")
        # A damaged or foreign file can fail anywhere in torch's, safetensors' or open_clip's readers.
        except Exception as error:
            raise ClipSegError(
                f"{path}: not weights of this model ({one_line(error)[:300]}); pickles and TorchScript archives are refused: "
                "use a state dict or safetensors"
            ) from error
    bad = [key for key, tensor in clip.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ClipSegError(f"{path}: not finite: {listed(bad, most=5)}; fetch the file again")
