"""Every kind of image becomes uint8 RGB; everything else becomes one clear line."""

import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipseg.errors import ClipSegError
from clipseg.image_io import open_pil, read_image, read_mask

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


RGB = Image.fromarray(PIXELS)
PNG, JPEG = encoded(RGB, "PNG"), encoded(RGB, "JPEG")


def test_rgb_is_read_exactly(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    expected = torch.from_numpy(PIXELS).permute(2, 0, 1)
    for source in (PNG, tmp_path / "a.png", str(tmp_path / "a.png"), RGB, PIXELS, expected, PIXELS / 255.0):
        image = read_image(source)
        assert image.dtype == torch.uint8
        assert image.is_contiguous()
        assert torch.equal(image, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I", "F"])
def test_every_mode_of_pillow_works(mode: str) -> None:
    if mode in ("I;16", "I"):
        image = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257).convert(mode)
    elif mode == "F":
        image = Image.fromarray(PIXELS[:, :, 0].astype(np.float32) / 255)
    else:
        image = RGB.convert(mode)
    pixels = read_image(image)
    assert pixels.shape == (3, 12, 20)
    assert pixels.dtype == torch.uint8
    assert pixels.float().std() > 20  # not clipped to one value


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    wide = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for source in (encoded(Image.fromarray(wide), "PNG"), encoded(Image.fromarray(wide), "TIFF"), wide):
        assert torch.equal(read_image(source)[1], torch.arange(256, dtype=torch.uint8).reshape(16, 16))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("form", ["array", "I;16", "I"])
def test_fewer_bits_in_wide_values_are_scaled_as_such_with_a_warning(bits: int, form: str) -> None:
    values = np.array([[0, (1 << bits) // 2, (1 << bits) - 1]], dtype=np.uint16)
    source = values if form == "array" else Image.fromarray(values).convert(form)
    with pytest.warns(UserWarning, match=f"use {bits} of 16 bits") as caught:
        assert read_image(source)[0].tolist() == [[0, 128, 255]]
    assert len(caught) == 1


def colours_in_16_bits(most: int) -> bytes:
    """A PNG of 2 x 1 pixels with 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(7) + most.to_bytes(2, "big") * 3)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_colours_in_16_bits_are_read_or_refused() -> None:
    assert read_image(colours_in_16_bits(65535)).unique().tolist() == [0, 255]
    for bits in (8, 10, 12, 14):
        with pytest.raises(ClipSegError, match=f"16-bit colours that use {bits} bits"):
            read_image(colours_in_16_bits((1 << bits) - 1))


def test_wide_masks_of_zeros_and_ones_need_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for most in (1, 255, 65535):
            mask = read_mask(encoded(Image.fromarray(np.array([[0, most]], dtype=np.uint16)), "PNG"))
            assert mask.tolist() == [[False, True]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_tensors_of_any_precision_and_layout(dtype: torch.dtype) -> None:
    image = torch.tensor([0.0, 0.25, 1.0]).expand(3, 2, 3).to(dtype)
    expected = torch.tensor([0, 64, 255], dtype=torch.uint8).expand(3, 2, 3)
    assert torch.equal(read_image(image), expected)
    assert torch.equal(read_image(image.requires_grad_()), expected)
    assert torch.equal(read_mask(torch.eye(3).to(dtype)), torch.eye(3).bool())
    assert torch.equal(read_mask(torch.eye(3).to_sparse()), torch.eye(3).bool())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.rand(45, 70, 3), r"\(45, 70, 3\); expected a tensor \[3, H, W\]"),
        (torch.zeros(3, 4, 4, device="meta"), "meta cannot be read"),
        (None, "of type NoneType; expected a path"),
        ([[0, 1]], "of type list"),
        (Image.new("RGB", (0, 0)), "0x0 pixels"),
        (Image.new("L", (0, 5)), "0x5 pixels"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is not read here; convert"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_what_is_no_image_is_told_for_what_it_is(read: Any, source: Any, message: str) -> None:
    with pytest.raises(ClipSegError, match=message):
        read(source)


def test_cmyk_and_gray_jpegs_are_converted() -> None:
    red = Image.new("RGB", (16, 16), (220, 30, 30))
    cmyk = read_image(encoded(red.convert("CMYK"), "JPEG", quality=95)).float().mean(dim=(1, 2))
    assert cmyk[0] > 180
    assert cmyk[1] < 70
    assert cmyk[2] < 70
    gray = read_image(encoded(RGB.convert("L"), "JPEG"))
    assert torch.equal(gray[0], gray[1])
    assert torch.equal(gray[0], gray[2])


def test_exif_orientation_is_applied_only_where_asked() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise
    photo = encoded(RGB, "JPEG", exif=exif)
    assert read_image(photo).shape == (3, 20, 12)
    assert read_image(photo, exif=False).shape == (3, 12, 20)


def test_the_first_frame_of_an_animation_is_used_with_a_warning() -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    with pytest.warns(UserWarning, match="first frame"):
        image = read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert image.max() < 50


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image, or an empty file"),
        (b"<html>not found</html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
        (JPEG[: len(JPEG) // 2], "(?i)truncated"),
        (JPEG[:-90], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ClipSegError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ClipSegError, match=r"no\.jpg: no such image"):
        read_image(tmp_path / "no.jpg")
    with pytest.raises(ClipSegError, match="cannot be read"):
        read_image(tmp_path)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    header = bytearray(PNG)
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    with pytest.raises(ClipSegError, match="decompression bomb"):
        read_image(bytes(header))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.full((4, 4), 1.5),
        np.full((4, 4), np.nan),
        np.zeros((4, 4), np.int64),
    ],
)
def test_arrays_that_are_no_image_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ClipSegError, match="image array"):
        read_image(array)


def test_open_pil_reads_the_header_only() -> None:
    with open_pil(JPEG[:700]) as image:  # the pixels are cut off
        assert image.size == (20, 12)


FORMS = [
    JPEG,
    PNG,
    encoded(RGB.convert("P"), "PNG"),
    encoded(RGB.convert("P"), "GIF"),
    encoded(RGB, "BMP"),
    encoded(RGB, "WEBP"),
]
FORMS += [encoded(RGB, "JPEG", progressive=True), encoded(RGB.convert("CMYK"), "JPEG")]


@settings(max_examples=300)
@given(data=st.data(), kind=st.sampled_from(range(len(FORMS))))
def test_mutated_files_give_an_image_or_one_clear_line(data: st.DataObject, kind: int) -> None:
    content = bytearray(FORMS[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    message, image = "", None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(bytes(content))
        except ClipSegError as error:
            message = str(error)
    assert "\n" not in message
    assert image is None or (image.dtype == torch.uint8 and image.shape[0] == 3)
