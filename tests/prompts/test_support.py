"""Visual prompts as people hand them in: any image, any mask, or one clear line."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipseg.errors import ClipSegError
from clipseg.image_io import read_mask
from clipseg.prompts.support import Mix, VisualPrompt

IMAGE = np.zeros((4, 6, 3), dtype=np.uint8)
MASK = np.zeros((4, 6), dtype=bool)
MASK[1:3, 2:5] = True


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        MASK.astype(np.uint8),
        MASK.astype(np.uint8) * 255,
        MASK.astype(np.int64),
        MASK.astype(np.uint16) * 65535,
        MASK.astype(np.float32) * 0.8,
        MASK[:, :, None],
        torch.from_numpy(MASK),
        torch.from_numpy(MASK).long(),
        Image.fromarray(MASK),
        Image.fromarray(MASK.astype(np.uint8)),
        Image.fromarray(MASK.astype(np.uint8) * 255).convert("RGB"),
        Image.fromarray(MASK.astype(np.uint8) * 200 + 20),
        png(MASK.astype(np.uint8) * 255),
        png(MASK),
    ],
)
def test_masks_of_any_kind(mask):
    prompt = VisualPrompt(IMAGE, mask)
    assert torch.equal(prompt.mask, torch.from_numpy(MASK))
    assert prompt.image.shape == (3, 4, 6)


def test_masks_from_files(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(png(MASK))
    assert torch.equal(read_mask(path), torch.from_numpy(MASK))
    assert torch.equal(read_mask(str(path)), torch.from_numpy(MASK))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (MASK[:3], "6x3 pixels, but its image has 6x4"),
        (MASK.T, "4x6 pixels"),
        (MASK & False, "mask: empty"),
        (MASK.astype(np.uint8) * 17, "its values are 0, 17; a mask holds"),
        (MASK.astype(np.float32) * 7, "outside"),
        (MASK.astype(np.int64) * 1000, "int64"),
        (MASK.astype(np.int64) * -1, "int64"),
        (np.zeros((0, 6), dtype=np.int64), "mask: shape"),
        (b"", "mask: not an image"),
        ("nowhere.png", "nowhere.png: no such image"),
    ],
)
def test_bad_masks_are_refused_in_one_line(mask, message):
    with pytest.raises(ClipSegError, match=message) as caught:
        VisualPrompt(IMAGE, mask)
    assert "\n" not in str(caught.value)


def test_a_prompt_is_frozen():
    prompt = VisualPrompt(IMAGE, MASK)
    with pytest.raises(AttributeError):
        prompt.mask = prompt.mask


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, True])
def test_weights_of_a_mix_are_in_0_to_1(weight):
    with pytest.raises(ClipSegError, match="weight"):
        Mix("a dog", VisualPrompt(IMAGE, MASK), weight)


def test_a_mix_is_of_text_and_picture():
    with pytest.raises(ClipSegError, match="VisualPrompt and str"):
        Mix(VisualPrompt(IMAGE, MASK), "a dog", 0.5)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_bytes_a_prompt_or_our_error(data):
    def bent(whole):
        """The bytes of a file with some of them changed, and the end perhaps missing; or any bytes."""
        if data.draw(st.integers(0, 4)) == 0:
            return data.draw(st.binary(max_size=64))
        found = bytearray(whole)
        for _ in range(data.draw(st.integers(0, 4))):
            found[data.draw(st.integers(0, len(found) - 1))] = data.draw(st.integers(0, 255))
        return bytes(found[: data.draw(st.integers(0, len(found)))] if data.draw(st.booleans()) else found)

    try:
        prompt = VisualPrompt(bent(png(IMAGE)), bent(png(MASK.astype(np.uint8) * 255)))
    except ClipSegError:
        return
    assert prompt.mask.any()
    assert prompt.image.shape[1:] == prompt.mask.shape


@pytest.mark.parametrize("values", [[0, 15, 255], [0, 40], [140, 200], list(range(200))])
def test_label_maps_and_photos_are_no_masks(values):
    photo = np.zeros((16, 16, 3), dtype=np.uint8)
    labels = np.resize(np.array(values, dtype=np.uint8), (16, 16))
    with pytest.raises(ClipSegError, match=r"labels == 15"):
        VisualPrompt(photo, labels)
    assert VisualPrompt(photo, labels == values[-1]).mask.any()


def test_a_photo_is_no_mask_of_itself():
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with pytest.raises(ClipSegError, match="a mask holds"):
        VisualPrompt(photo, photo)


def photo(orientation, size):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(file, format="JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_what_exif_does_to_a_support_is_said_where_sizes_cannot_tell(orientation):
    square, size = np.eye(8, dtype=bool), (4, 6) if orientation < 5 else (6, 4)
    with pytest.warns(UserWarning, match="as it is shown"):
        VisualPrompt(photo(orientation, (8, 8)), square)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VisualPrompt(photo(1, (8, 8)), square)
    if orientation < 5:
        with pytest.warns(UserWarning, match="its EXIF turns or mirrors it"):
            VisualPrompt(photo(orientation, size), MASK)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VisualPrompt(photo(orientation, size), MASK)
    with pytest.raises(ClipSegError, match="4x6 pixels, but its image has 6x4, upright as its EXIF orientation says"):
        VisualPrompt(photo(orientation, size), MASK.T)
