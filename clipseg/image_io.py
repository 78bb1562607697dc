"""Any image a user has -> uint8 RGB pixels. The one place that decodes files, so that every reader sees the same photo."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from clipseg.errors import ClipSegError, one_line

ImageLike = str | Path | bytes | Image.Image | np.ndarray | Tensor

# What photos and masks come in (the MPO of phones is a JPEG). Pillow opens more, some of it unsafely: EPS starts Ghostscript.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# How files of these formats are called, in small letters.
SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read_image(source: ImageLike, *, name: str | None = None, exif: bool = True) -> Tensor:
    """Decode an image of any kind.

    Args:
        source: a path, the bytes of an image file, a PIL image of any mode, or an array / tensor: `[H, W]`, `[H, W, 1|3|4]`
            (arrays) or `[3, H, W]` (tensors); uint8, uint16 (scaled from 0..65535), bool, or float in [0, 1].
        name: how an error calls the image; the path where there is one.
        exif: turn the photo upright as its EXIF orientation says. Annotations of data sets are drawn on the pixels as
            stored, so the readers of data sets pass False.

    Returns:
        uint8 RGB `[3, H, W]`. Transparency is dropped, gray is repeated, CMYK and palettes are converted, 16 bits are scaled
        to 8; of an animation the first frame, with a warning.

    Raises:
        ClipSegError: missing, empty, truncated, no image, or larger than Pillow's decompression-bomb limit.
    """
    if isinstance(source, Tensor):
        array = source.detach().cpu().numpy()
        return _from_array(array.transpose(1, 2, 0) if array.ndim == 3 else array, name)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, Image.Image):
        return _from_pil(source, name or "image", exif)
    label = name or (str(source) if isinstance(source, (str, Path)) else "image bytes")
    with open_pil(source, name=label) as image:
        return _from_pil(image, label, exif)


def read_mask(source: ImageLike, *, exif: bool = True) -> Tensor:
    """Decode a mask of any kind -> bool `[H, W]`, True on the object.

    It holds two values, 0 and 1 or one on either side of the middle, or a single one: what holds more is a label map, a photo,
    or a mask that lossy compression has blurred.

    Raises:
        ClipSegError: unreadable, or other values.
    """
    if isinstance(source, Tensor) and source.ndim == 2:
        source = source.detach().cpu().numpy()
    # `labels == 3` summed or cast comes as wide integers, which no image has.
    if isinstance(source, np.ndarray) and source.dtype.kind in "iu" and not ((source < 0) | (source > 255)).any():
        source = source.astype(np.uint8)
    name = str(source) if isinstance(source, (str, Path)) else "mask"
    pixels = read_image(source, name=name, exif=exif)
    values = pixels.amax(dim=0)
    found = values.unique().tolist()
    if len(found) > 2 or (len(found) == 2 and found[0] > 127) or 1 < found[-1] < 128:
        some = ", ".join(map(str, found[:4])) + (" …" if len(found) > 4 else "")
        raise ClipSegError(
            f"{name}: its values are {some}; a mask holds 0 and 1, or 0 and 255, and no other value: of a label map pass "
            "labels == 15, and save masks as PNG"
        )
    return values > (0 if found[-1] == 1 else 127)


def open_pil(source: str | Path | bytes, *, name: str | None = None) -> Image.Image:
    """Open an image file without decoding its pixels (`.size` and `.mode` are there), as a context manager.

    Raises:
        ClipSegError: missing, empty, no image, or a decompression bomb.
    """
    label = name or (str(source) if isinstance(source, (str, Path)) else "image bytes")
    if isinstance(source, (str, Path)) and os.path.exists(source) and not os.path.isfile(source):
        raise ClipSegError(f"{label}: cannot be read (a folder or a device, no file)")  # a pipe would be waited for without end
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except FileNotFoundError as error:
        raise ClipSegError(f"{label}: no such image") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ClipSegError(f"{label}: refused as a decompression bomb (over {Image.MAX_IMAGE_PIXELS:,} pixels)") from error
    except UnidentifiedImageError as error:
        raise ClipSegError(f"{label}: not an image, or an empty file") from error
    # Damaged headers make Pillow's readers raise nearly anything.
    except Exception as error:
        raise ClipSegError(f"{label}: cannot be read ({one_line(error)})") from error


def _from_pil(image: Image.Image, name: str, exif: bool) -> Tensor:
    try:
        # A photo with a preview or a depth map in it (MPO) has several pictures too, but one that is meant.
        is_animated = getattr(image, "is_animated", False) and image.format != "MPO"
        if exif:
            image = ImageOps.exif_transpose(image)
        # Pillow clips 16-bit gray to 255 when it converts to RGB; it is scaled below instead.
        is_wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
        pixels = np.asarray(image if is_wide else image.convert("RGB"))
    # Decoders raise whatever they meet in damaged bytes; all of it means the same to a caller.
    except Exception as error:
        raise ClipSegError(f"{name}: truncated or damaged ({one_line(error)}); fetch or write the file again") from error
    if is_animated:
        warnings.warn(f"{name}: animated; only its first frame is used", stacklevel=3)
    if is_wide:
        return _from_array(_wide_gray(pixels, image.mode, name), name)
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def _wide_gray(pixels: np.ndarray, mode: str, name: str) -> np.ndarray:
    if mode == "F":
        return pixels.astype(np.float32)
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 65535:
        raise ClipSegError(f"{name}: 32-bit gray values outside 0..65535; convert the image to 8 or 16 bits")
    return pixels.astype(np.uint16)


def _from_array(pixels: np.ndarray, name: str | None) -> Tensor:
    label = name or "image array"
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise ClipSegError(f"{label}: shape {pixels.shape}; expected [H, W] or [H, W, 1|3|4] (tensors: [3, H, W])")
    pixels = pixels[:, :, :3]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257.0).astype(np.uint8)  # 65535 / 257 = 255
    elif np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise ClipSegError(f"{label}: float values outside [0, 1]; divide by the largest value, or pass uint8")
        pixels = np.rint(pixels * 255.0).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ClipSegError(f"{label}: dtype {pixels.dtype}; expected uint8, uint16, bool or float in [0, 1]")
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
