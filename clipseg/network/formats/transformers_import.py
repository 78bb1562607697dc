"""A folder in transformers' layout -> a whole model: CLIP and decoder, and the image size of its processor."""

import reprlib
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

from clipseg.errors import ClipSegError
from clipseg.files import read_json
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.formats.renaming import from_theirs
from clipseg.network.formats.transformers_config import read_folder_config
from clipseg.network.formats.transformers_layout import build_clip, clip_weights, decoder_table
from clipseg.network.model import CLIPSeg, ModelConfig
from clipseg.network.tensor_files import read_folder_weights, shapes_of

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
