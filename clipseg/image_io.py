"""Any image a user has -> uint8 RGB pixels. The one place that decodes files, so that every reader sees the same photo."""

import contextlib
import io
import os
import warnings

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from clipseg.errors import ClipSegError, one_line

ImageLike = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor

# What photos and masks come in (the MPO of phones is a JPEG). Pillow opens more, some of it unsafely: EPS starts Ghostscript.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# How files of these formats are called, in small letters.
SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read_image(source: ImageLike, *, name: str | None = None, exif: bool = True) -> Tensor:
    """Decode an image of any kind.

    Args:
        source: a path, the bytes of an image file, a PIL image of any mode, or an array / tensor: `[H, W]`, `[H, W, 1|3|4]`
            (arrays) or `[1|3|4, H, W]` (tensors); uint8, uint16, bool, or float in [0, 1] of any precision.
        name: how an error calls the image; the path where there is one.
        exif: turn the photo upright as its EXIF orientation says. Annotations of data sets are drawn on the pixels as
            stored, so the readers of data sets pass False.

    Returns:
        uint8 RGB `[3, H, W]`. Transparency is dropped, gray is repeated, CMYK and palettes are converted, 16 bits are scaled
        to 8, with a warning where the values use only 8 to 14 of them; of an animation the first frame, with a warning.

    Raises:
        ClipSegError: missing, empty, truncated, no image, or larger than Pillow's decompression-bomb limit.
    """
    pixels, bits = _decode(source, name, exif)
    if bits < 16:
        warnings.warn(f"{_called(source, name)}: its values use {bits} of 16 bits, and are scaled as such", stacklevel=2)
    return pixels


def _decode(source: ImageLike, name: str | None, exif: bool) -> tuple[Tensor, int]:
    """As `read_image`, with the number of bits that 16-bit values use; 16 for all others."""
    label = _called(source, name)
    if isinstance(source, Tensor):
        return _from_array(_to_array(source, label), label)
    if isinstance(source, np.ndarray):
        return _from_array(source, label)
    if isinstance(source, Image.Image):
        return _from_pil(source, label, exif)
    with open_pil(source, name=label) as image:
        return _from_pil(image, label, exif)


def _called(source: ImageLike, name: str | None) -> str:
    if name is not None:
        return name
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    if isinstance(source, bytes):
        return "image bytes"
    return "image array" if isinstance(source, (np.ndarray, Tensor)) else "image"


def _to_array(image: Tensor, label: str) -> np.ndarray:
    """`[C, H, W]` -> `[H, W, C]`; what numpy knows no type for (bfloat16, float8) as float32."""
    try:
        dense = image.detach().to_dense() if image.layout != torch.strided else image
        array = (dense.float() if dense.is_floating_point() else dense).numpy(force=True)
    except (RuntimeError, TypeError) as error:
        raise ClipSegError(f"{label}: {image.dtype} on {image.device} cannot be read ({one_line(error)[:120]})") from error
    if array.ndim == 3 and array.shape[0] not in (1, 3, 4):
        raise ClipSegError(f"{label}: shape {array.shape}; expected a tensor [3, H, W] (`permute(2, 0, 1)` puts RGB first)")
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def orientation(source: ImageLike) -> int:
    """How a picture is to be turned, by its EXIF: 1 as it is stored, or where nothing tells; 2 to 8 turned or mirrored."""
    if not isinstance(source, (str, os.PathLike, bytes, Image.Image)):
        return 1
    with contextlib.nullcontext(source) if isinstance(source, Image.Image) else open_pil(source) as image:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def read_mask(source: ImageLike, *, exif: bool = True) -> Tensor:
    """Decode a mask of any kind -> bool `[H, W]`, True on the object.

    It holds two values, 0 and 1 or one on either side of the middle, or a single one: what holds more is a label map, a photo,
    or a mask that lossy compression has blurred.

    Raises:
        ClipSegError: unreadable, or other values.
    """
    name = str(source) if isinstance(source, (str, os.PathLike)) else "mask"
    if isinstance(source, Tensor):
        source = _to_array(source, name)
    # `labels == 3` summed or cast comes as wide integers, which no image has.
    if isinstance(source, np.ndarray) and source.dtype.kind in "iu" and not ((source < 0) | (source > 255)).any():
        source = source.astype(np.uint8)
    pixels, _ = _decode(source, name, exif)
    values = pixels.amax(dim=0)
    found = values.unique().tolist()
    if len(found) > 2 or (len(found) == 2 and found[0] > 127) or 1 < found[-1] < 128:
        some = ", ".join(map(str, found[:4])) + (" …" if len(found) > 4 else "")
        raise ClipSegError(
            f"{name}: its values are {some}; a mask holds 0 and 1, or 0 and 255, and no other value: of a label map pass "
            "labels == 15, and save masks as PNG"
        )
    return values > (0 if found[-1] == 1 else 127)


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Decode a label map, a PNG in gray or with a palette -> its values, uint8 `[H, W]`.

    Raises:
        ClipSegError: missing, in colours, or damaged.
    """
    with open_pil(path) as image:
        if image.mode not in ("P", "L"):
            raise ClipSegError(
                f"{path}: a picture of mode {image.mode}; expected a palette or gray PNG, whose values are labels"
            )
        try:
            return np.array(image)
        # Decoders raise whatever they meet in damaged bytes; all of it means the same to a caller.
        except Exception as error:
            raise ClipSegError(f"{path}: truncated or damaged ({one_line(error)}); fetch or write the file again") from error


def open_pil(source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> Image.Image:
    """Open an image file without decoding its pixels (`.size` and `.mode` are there), as a context manager.

    Raises:
        ClipSegError: missing, empty, no image, or a decompression bomb.
    """
    label = _called(source, name)
    is_path = isinstance(source, (str, os.PathLike))
    if not is_path and not isinstance(source, bytes) and not hasattr(source, "read"):
        raise ClipSegError(
            f"{label} of type {type(source).__name__}; expected a path, bytes of a file, a PIL image, an array or a tensor"
        )
    if is_path and os.path.exists(source) and not os.path.isfile(source):
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
        what = "HEIC, which is not read here; convert it to JPEG" if _is_heic(source) else "not an image, or an empty file"
        raise ClipSegError(f"{label}: {what}") from error
    # Damaged headers make Pillow's readers raise nearly anything.
    except Exception as error:
        raise ClipSegError(f"{label}: cannot be read ({one_line(error)})") from error


def _is_heic(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether a file is as phones of one brand take photos, by the brands that an ISO media file names first."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            source = file.read(12)
    return isinstance(source, bytes) and source[4:8] == b"ftyp" and source[8:11] in (b"hei", b"hev", b"mif", b"msf")


def _from_pil(image: Image.Image, name: str, exif: bool) -> tuple[Tensor, int]:
    if 0 in image.size:
        raise ClipSegError(f"{name}: {image.width}x{image.height} pixels; an image has at least one")
    try:
        # A photo with a preview or a depth map in it (MPO) has several pictures too, but one that is meant.
        is_animated = getattr(image, "is_animated", False) and image.format != "MPO"
        # Of 16-bit colours Pillow reads the upper half alone.
        is_halved = image.mode[0] != "I" and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        if exif:
            image = ImageOps.exif_transpose(image)
        # Pillow clips 16-bit gray to 255 when it converts to RGB; it is scaled below instead.
        is_wide = image.mode in ("I", "F") or image.mode.startswith("I;16")
        pixels = np.asarray(image if is_wide else image.convert("RGB"))
    # Decoders raise whatever they meet in damaged bytes; all of it means the same to a caller.
    except Exception as error:
        raise ClipSegError(f"{name}: truncated or damaged ({one_line(error)}); fetch or write the file again") from error
    if is_halved and pixels.max() < 1 << 6:
        raise ClipSegError(
            f"{name}: 16-bit colours that use {8 + int(pixels.max()).bit_length()} bits, of which only the upper 8 are read; "
            "save it with 8 bits a channel"
        )
    if is_animated:
        warnings.warn(f"{name}: animated; only its first frame is used", stacklevel=3)
    if is_wide:
        return _from_array(_wide_gray(pixels, image.mode, name), name)
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")), 16


def _wide_gray(pixels: np.ndarray, mode: str, name: str) -> np.ndarray:
    if mode == "F":
        return pixels.astype(np.float32)
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 65535:
        raise ClipSegError(f"{name}: 32-bit gray values outside 0..65535; convert the image to 8 or 16 bits")
    return pixels.astype(np.uint16)


def _from_array(pixels: np.ndarray, label: str) -> tuple[Tensor, int]:
    shape, bits = pixels.shape, 16
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in shape:
        raise ClipSegError(f"{label}: shape {shape}; expected [H, W] or [H, W, 1|3|4] (tensors: [3, H, W])")
    pixels = pixels[:, :, :3]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype == np.uint16:
        # Cameras and microscopes store 10, 12 or 14 bits as they are, and programs 0..255: as 16 they would be nearly black.
        most = int(pixels.max())
        bits = min((used for used in (8, 10, 12, 14) if 0 < most < 1 << used), default=16)
        pixels = np.rint(pixels * (255 / ((1 << bits) - 1))).astype(np.uint8)
    elif np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
            raise ClipSegError(f"{label}: float values outside [0, 1]; divide by the largest value, or pass uint8")
        pixels = np.rint(pixels * 255.0).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ClipSegError(f"{label}: dtype {pixels.dtype}; expected uint8, uint16, bool or float in [0, 1]")
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")), bits
