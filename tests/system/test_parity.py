"""The same weights give the same logits as transformers' CLIPSeg; `parity_full_size.py` shows it at full size."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference import TEXTS, narrow_config, random_condition, random_images, save_reference, spread
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

from clipseg.network.formats.renaming import decoder_table, to_theirs
from clipseg.network.formats.transformers import save_transformers
from clipseg.network.model import CLIPSeg
from clipseg.network.weights import load

CASES = {
    "plain": {"extract_layers": [3, 7, 9]},
    "layers 3, 6, 9": {"extract_layers": [3, 6, 9]},
    "refined": {"extract_layers": [3, 7, 9], "use_complex_transposed_convolution": True},
    "refined D 16": {"reduce_dim": 16, "use_complex_transposed_convolution": True},
    "D 16": {"reduce_dim": 16},
    "D 128": {"reduce_dim": 128},
    "one read-out": {"extract_layers": [3]},
    "patch 32": {"patch_size": 32, "image_size": 128},
    "GELU": {"hidden_act": "gelu"},
}
Pair = tuple[CLIPSegForImageSegmentation, CLIPSeg]


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("reference")
    return save_reference(narrow_config(**request.param), folder), load(folder)


@pytest.mark.parametrize("relative_size", [0.5, 1, 1.5])
@pytest.mark.parametrize("kind", ["text", "image", "embedding"])
@torch.no_grad()
def test_logits(pair: Pair, kind: str, relative_size: float):
    reference, model = pair
    side = int(relative_size * reference.config.vision_config.image_size)
    images = random_images(2, (side, side))
    if kind == "text":
        condition = model.encode_text(TEXTS)
        tokens = model.backbone.tokenize(TEXTS)
        expected = reference(pixel_values=images, input_ids=tokens).logits
    elif kind == "image":
        support = random_images(2, (side, side), seed=5)
        condition = model.encode_image(support)
        expected = reference(pixel_values=images, conditional_pixel_values=support).logits
    else:
        condition = random_condition(2, 32)
        expected = reference(pixel_values=images, conditional_embeddings=condition).logits
    logits = model(images, condition)
    assert spread(expected) >= 3
    assert (logits - expected).abs().max() <= 1e-4
    assert (model(images, condition.flip(0)) - expected).abs().max() > 0.1, "logits must depend on the condition"


@pytest.mark.parametrize("size", [(64, 96), (48, 112)])
@torch.no_grad()
def test_activations_of_images_that_are_not_square(tmp_path: Path, size: tuple[int, int]):
    reference = save_reference(narrow_config(), tmp_path)
    model = load(tmp_path, extract_layers=(3, 7, 9))
    images = random_images(2, size)
    states = reference.clip.vision_model(images, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
    for layer, activation in zip((3, 7, 9), model.activations(images), strict=True):
        assert (activation - states[layer + 1]).abs().max() <= 1e-4
    assert model(images, random_condition(2, 32)).shape == (2, *size)


@pytest.mark.parametrize("refined", [False, True])
def test_one_training_step(tmp_path: Path, refined: bool):
    reference = save_reference(narrow_config(use_complex_transposed_convolution=refined), tmp_path)
    reference.requires_grad_(False).decoder.requires_grad_(True)
    model = load(tmp_path)
    images, condition = random_images(3, (96, 96)), random_condition(3, 32)
    masks = (random_images(3, (96, 96), seed=9)[:, 0] > 0.5).float()

    expected = reference(pixel_values=images, conditional_embeddings=condition, labels=masks).loss
    expected.backward()
    loss = F.binary_cross_entropy_with_logits(model(images, condition), masks)
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    gradients = {name: parameter.grad for name, parameter in model.decoder.named_parameters()}
    ours = to_theirs(gradients, decoder_table(3, model.config.head))
    theirs = {name: parameter.grad for name, parameter in reference.named_parameters() if parameter.grad is not None}
    assert ours.keys() == theirs.keys()
    largest = max(gradient.abs().max() for gradient in theirs.values())
    for name, gradient in theirs.items():
        # Attention ignores the bias of its keys, so that its gradient is nothing but rounding; hence the floor.
        assert (ours[name] - gradient).abs().max() <= 5e-5 * max(gradient.abs().max(), 1e-2 * largest), name


def test_what_is_saved_loads_in_transformers(pair: Pair, tmp_path: Path):
    _, model = pair
    if model.config.head == "refined" and model.backbone.patch_size != 16:
        pytest.skip("the layout cannot hold it")
    save_transformers(model, tmp_path)
    saved, processor = CLIPSegForImageSegmentation.from_pretrained(tmp_path).eval(), CLIPSegProcessor.from_pretrained(tmp_path)
    images = random_images(2, (64, 64))
    with torch.no_grad():
        expected = saved(pixel_values=images, **processor(text=TEXTS, padding=True, return_tensors="pt")).logits
        assert (model(images, TEXTS) - expected).abs().max() <= 1e-4
        again = load(tmp_path)
        assert torch.equal(again(images, TEXTS), model(images, TEXTS))
    assert again.config.extract_layers == model.config.extract_layers
    assert again.config.image_size == model.config.image_size


def test_both_tokenizers_agree(tmp_path: Path):
    save_reference(narrow_config(), tmp_path / "reference")
    model = load(tmp_path / "reference")
    save_transformers(model, tmp_path / "saved")
    processor = CLIPSegProcessor.from_pretrained(tmp_path / "saved")
    texts = ["A photo of a dog.", "Two  DOGS'  tails", "Ünïcode 日本 café", "<b>3.5%</b> & more", "word " * 90]
    rows = processor(text=texts, padding=True, truncation=True, return_tensors="pt")["input_ids"].tolist()
    with pytest.warns(UserWarning, match="cut to CLIP's 77 tokens"):
        tokens = model.backbone.tokenize(texts)
    for row, ours in zip(rows, tokens.tolist(), strict=True):
        assert row[: row.index(49407) + 1] == ours[: ours.index(49407) + 1]


def test_the_processor_prepares_images_as_the_paper_does(tmp_path: Path):
    from clipseg.network.preprocess import normalise

    save_reference(narrow_config(), tmp_path / "reference")
    save_transformers(load(tmp_path / "reference"), tmp_path / "saved")
    processor = CLIPSegProcessor.from_pretrained(tmp_path / "saved")
    image = torch.randint(0, 256, (3, 352, 352), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepared = processor(images=image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(prepared[0], normalise(image / 255), rtol=0, atol=1e-5)
