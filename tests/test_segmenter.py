"""Pictures and prompts to probabilities, on a random narrow model: shapes, sizes and counts, not what is recognised."""

import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipseg import ClipSegError, Mix, Segmenter, VisualPrompt, create_model, load
from clipseg import segmenter as module
from clipseg.network.preprocess import normalise, prepare_images, resize_images, resize_masks, resize_probabilities
from clipseg.prompts.text import TEMPLATES, fill
from clipseg.prompts.visual import DEFAULT_VARIANT, VARIANTS, engineer

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (45, 70, 3), dtype=np.uint8)
MASK = np.zeros((45, 70), dtype=bool)
MASK[10:30, 20:50] = True


@pytest.fixture
def segment(tiny_model):
    return Segmenter(tiny_model)


class Calls:
    """Counts the calls of a method of the model and the rows they were given."""

    def __init__(self, monkeypatch, model, name):
        self.rows: list[int] = []
        original = getattr(model, name)

        def counted(rows, *args):
            self.rows.append(len(rows))
            return original(rows, *args)

        monkeypatch.setattr(model, name, counted)


def test_maps_are_the_models_own_at_the_size_of_the_image(tiny_model, segment):
    prompts = ["a dog", "sky", "a dog"]
    probabilities = segment(PHOTO, prompts)
    images = prepare_images([torch.from_numpy(PHOTO).permute(2, 0, 1)], (64, 64)).expand(3, -1, -1, -1)
    with torch.no_grad():
        expected = resize_probabilities(tiny_model(images, prompts).sigmoid(), (45, 70))
    torch.testing.assert_close(probabilities, expected)
    assert probabilities.dtype == torch.float32
    assert probabilities.device.type == "cpu"
    assert not probabilities.requires_grad
    assert probabilities.std() > 0.05
    assert not torch.allclose(probabilities[0], probabilities[1])
    probabilities[0] *= 0.5  # a plain tensor, which its owner may change


def test_prompts_of_every_kind_in_one_call(segment):
    visual, embedding = VisualPrompt(PHOTO, MASK), torch.randn(128, dtype=torch.float64)
    prompts = ["sky", visual, Mix("sky", visual, 0.3), embedding, Mix("a dog", visual, 1.0), Mix("sky", visual, 0)]
    together = segment(PHOTO, prompts)
    assert together.shape == (6, 45, 70)
    for prompt, found in zip(prompts, together, strict=True):
        for alone in (segment(PHOTO, [prompt]), segment(PHOTO, prompt)):
            assert alone.shape == (1, 45, 70)
            torch.testing.assert_close(alone[0], found, atol=1e-5, rtol=1e-4)
    text, seen, mixed, given_, only_text, only_visual = segment.embed(prompts)
    torch.testing.assert_close(mixed, 0.3 * text + 0.7 * seen)
    assert torch.equal(given_, embedding.float())
    assert torch.equal(only_text, segment.embed("a dog")[0])
    assert torch.equal(only_visual, seen)
    torch.testing.assert_close(segment(PHOTO, segment.embed(prompts)), together)


def test_embeddings_of_any_precision_and_layout(segment):
    embedding = torch.linspace(-1, 1, 128).mul(8).round().div(8)  # exact in four bits
    expected = segment(PHOTO, embedding)
    for same in (embedding.to(torch.float8_e4m3fn), embedding.bfloat16(), embedding.double(), embedding.to_sparse()):
        assert torch.equal(segment(PHOTO, [same]), expected)
    visual = VisualPrompt(PHOTO, MASK)
    assert torch.equal(segment.embed(Mix("a", visual, np.float32(0.5))), segment.embed(Mix("a", visual, 0.5)))


def test_a_visual_prompt_is_engineered_as_the_paper_does(tiny_model, segment):
    support = RNG.integers(0, 256, (30, 52, 3), dtype=np.uint8)
    mask = np.zeros((30, 52), dtype=np.uint8)
    mask[5:20, 8:40] = 1
    image = resize_images([torch.from_numpy(support).permute(2, 0, 1)], (64, 64))
    shown, _ = engineer(image, resize_masks([torch.from_numpy(mask)], (64, 64)), VARIANTS[DEFAULT_VARIANT], normalise=normalise)
    torch.testing.assert_close(segment.embed(VisualPrompt(support, mask)), tiny_model.encode_image(shown))


def test_an_object_of_one_pixel_is_not_lost(segment):
    mask = np.zeros((400, 500), dtype=bool)
    mask[201, 303] = True  # between the samples of the nearest rule
    assert not resize_masks([torch.from_numpy(mask).byte()], (64, 64)).any()
    assert segment.embed(VisualPrompt(np.zeros((400, 500, 3), dtype=np.uint8), mask)).isfinite().all()


def test_one_backbone_pass_an_image(tiny_model, segment, monkeypatch):
    images, texts = Calls(monkeypatch, tiny_model, "activations"), Calls(monkeypatch, tiny_model, "encode_text")
    segment(PHOTO, ["a", "b", "c", "a"])
    assert (images.rows, texts.rows) == ([1], [3])
    segment.set_image(PHOTO)
    for prompts in (["a"], ["a", "b", "d"], ["c"]):
        segment.predict(prompts)
    assert (images.rows, texts.rows) == ([1, 1], [3, 1])


def test_other_weights_give_other_answers(segment):
    segment = Segmenter(create_model("mini", None, image_size=48, reduce_dim=16))
    segment.embed("sky")
    other = create_model("mini", None, image_size=48, reduce_dim=16, seed=1)
    for assign in (False, True):
        weights = {key: tensor.clone() for key, tensor in other.state_dict().items()}
        segment.model.load_state_dict(weights, assign=assign)
        torch.testing.assert_close(segment.embed("sky"), other.encode_text(["sky"]))
        with torch.no_grad():
            segment.model.backbone.clip.token_embedding.weight.mul_(2)
        torch.testing.assert_close(segment.embed("sky"), segment.model.encode_text(["sky"]))


def test_after_a_set_image_that_fails_none_is_active(segment):
    segment.set_image(PHOTO)
    with pytest.raises(ClipSegError, match="no such image"):
        segment.set_image("nowhere.jpg")
    with pytest.raises(ClipSegError, match="no image to ask about"):
        segment.predict("sky")


def test_maps_that_are_not_finite_are_an_error(segment):
    with pytest.raises(ClipSegError, match="not finite"):
        segment(PHOTO, torch.full((128,), 1e38))
    broken = create_model("mini", None, image_size=48, reduce_dim=16)
    with torch.no_grad():
        broken.decoder.head.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ClipSegError, match="weights are damaged"):
        Segmenter(broken)(PHOTO, "sky")


def test_maps_that_no_memory_holds_are_refused(segment):
    segment.set_image(PHOTO)
    segment._image = replace(segment._image, size=(2**21, 2**21))
    with pytest.raises(ClipSegError, match="no memory for 3 maps of 2097152x2097152 pixels; ask less"):
        segment.predict(["a", "b", "c"])


def test_models_by_name_and_in_wrappers(tiny_model, segment):
    assert torch.equal(Segmenter("mini")(PHOTO, "sky"), Segmenter(load("mini"))(PHOTO, "sky"))
    expected = segment(PHOTO, ["sky", VisualPrompt(PHOTO, MASK)])
    for wrapped in (torch.nn.DataParallel(tiny_model), torch.compile(tiny_model)):
        assert torch.equal(Segmenter(wrapped)(PHOTO, ["sky", VisualPrompt(PHOTO, MASK)]), expected)
    for wrong in (None, 3, tiny_model.decoder, [tiny_model]):
        with pytest.raises(ClipSegError, match="model of type"):
            Segmenter(wrong)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_quantised_model_answers_nearly_the_same(tiny_model, segment):
    quantisation = pytest.importorskip("torch.ao.quantization")  # torch means to give it up
    quantised = quantisation.quantize_dynamic(tiny_model, {torch.nn.Linear}, dtype=torch.qint8)
    prompts = ["sky", VisualPrompt(PHOTO, MASK)]
    torch.testing.assert_close(Segmenter(quantised)(PHOTO, prompts), segment(PHOTO, prompts), atol=0.1, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("defaults", ["torch.set_default_dtype(torch.float64)", "torch.set_default_device('meta')"])
def test_what_torch_takes_by_default_changes_nothing(defaults):
    """In a process of its own: both are for all threads, or for all that comes."""
    code = """
import numpy, torch, clipseg
DEFAULTS
photo, mask = numpy.zeros((45, 70, 3), numpy.uint8), numpy.eye(45, 70) > 0
for model in (clipseg.load("mini"), clipseg.create_model("mini", None, image_size=48)):
    prompts = ["sky", clipseg.VisualPrompt(photo, mask)]
    maps = clipseg.Segmenter(model)(photo, prompts)
    assert (maps.dtype, maps.device.type) == (torch.float32, "cpu")
    print(f"{maps.double().sum():.3f}", f"{clipseg.classify(photo, ['dog', 'cat'], model=model)['dog']:.4f}")
"""
    run = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, env=os.environ)
        for text in (code.replace("DEFAULTS", defaults), code.replace("DEFAULTS", ""))
    ]
    assert run[0].stdout == run[1].stdout != "", run[0].stderr


def test_set_image_and_predict_equal_a_call(segment):
    with pytest.raises(ClipSegError, match="set_image"):
        segment.predict(["sky"])
    segment.set_image(PHOTO)
    other = segment(np.ascontiguousarray(PHOTO[::-1]), ["sky"])  # a call in between changes nothing
    assert torch.equal(segment.predict(["sky"]), segment(PHOTO, ["sky"]))
    assert not torch.equal(segment.predict(["sky"]), other)


def test_many_prompts_equal_few(segment, monkeypatch):
    prompts = [f"thing {number}" for number in range(7)]
    together = segment(PHOTO, prompts)
    monkeypatch.setattr(module, "CHUNK", 3)
    torch.testing.assert_close(Segmenter(segment.model)(PHOTO, prompts), together, atol=1e-5, rtol=1e-4)


def test_templates_are_averaged(tiny_model):
    for choice, expected in (("extended", TEMPLATES["extended"]), (["my {}", "{}"], ("my {}", "{}")), ("a {}", ("a {}",))):
        mean = tiny_model.encode_text([fill(template, "dog") for template in expected]).mean(dim=0)
        torch.testing.assert_close(Segmenter(tiny_model, templates=choice).embed(["cat", "dog"])[1], mean)
    with pytest.raises(ClipSegError, match="templates"):
        Segmenter(tiny_model, templates="fixd")


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, (64, 64)),
        ({"size": 48}, (48, 48)),
        ({"size": np.int64(64)}, (64, 64)),
        ({"size": (32, 80)}, (32, 80)),
        ({"keep_aspect": True}, (48, 80)),
        ({"keep_aspect": True, "size": 160}, (128, 192)),
    ],
)
def test_what_the_network_sees(tiny_model, monkeypatch, options, seen):
    sizes = []
    original = tiny_model.activations
    monkeypatch.setattr(tiny_model, "activations", lambda images: (sizes.append(tuple(images.shape[2:])), original(images))[1])
    assert Segmenter(tiny_model, **options)(PHOTO, ["sky"]).shape == (1, 45, 70)
    assert sizes == [seen]


def test_a_thin_strip_keeps_its_aspect_within_bounds(tiny_model):
    segment = Segmenter(tiny_model, keep_aspect=True)
    assert segment(np.zeros((1, 3000), dtype=np.uint8), ["sky"]).shape == (1, 1, 3000)
    assert segment(np.zeros((3000, 1), dtype=np.uint8), ["sky"]).shape == (1, 3000, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 50}, "multiples of the patch size 16"),
        ({"size": 0}, "multiples"),
        ({"size": -16}, "multiples"),
        ({"size": (48,)}, "multiples"),
        ({"size": 48.0}, "multiples"),
        ({"size": "48"}, "multiples"),
        ({"size": 16 * 10**6}, "more than 8192 pixels"),
        ({"templates": 3}, "no template"),
        ({"size": (32, 64), "keep_aspect": True}, "keep_aspect"),
    ],
)
def test_sizes_that_cannot_be(tiny_model, options, message):
    with pytest.raises(ClipSegError, match=message):
        Segmenter(tiny_model, **options)


def test_images_of_any_kind(segment, tmp_path):
    expected = segment(PHOTO, ["sky"])
    image = Image.fromarray(PHOTO)
    image.save(tmp_path / "photo.png")
    same = [image, tmp_path / "photo.png", str(tmp_path / "photo.png"), (tmp_path / "photo.png").read_bytes()]
    same += [torch.from_numpy(PHOTO).permute(2, 0, 1), PHOTO / 255.0, PHOTO.astype(np.uint16) * 257, image.convert("RGBA")]
    for one in same:
        assert torch.equal(segment(one, ["sky"]), expected)
    for mode in ("1", "L", "P", "CMYK", "I;16"):
        assert segment(image.convert("L").convert(mode), ["sky"]).shape == (1, 45, 70)
    assert segment(PHOTO[:1, :1], ["sky"]).shape == (1, 1, 1)


def test_photos_are_turned_upright(segment):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(file, format="PNG", exif=exif)
    turned = segment(file.getvalue(), ["sky"])
    assert torch.equal(turned, segment(np.ascontiguousarray(np.rot90(PHOTO, -1)), ["sky"]))
    assert turned.shape == (1, 70, 45)


def test_no_dropout_and_no_gradient(tiny_model, segment):
    segment.model.decoder.train()
    assert torch.equal(segment(PHOTO, ["sky"]), segment(PHOTO, ["sky"]))
    assert not segment.model.decoder.training
    assert not segment.embed(["sky"]).requires_grad


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompts"),
        (torch.zeros(0, 128), "no prompts"),
        ([1], "type int"),
        (None, "type NoneType"),
        (["a", b"b"], "type bytes"),
        (["a\udcff"], "no text"),
        ([torch.zeros(127)], r"expected finite float \[128\]"),
        (torch.tensor(1.0), "expected finite"),
        ([torch.full((128,), float("nan"))], "expected finite"),
        ([torch.zeros(128, dtype=torch.int64)], "expected finite"),
        ([torch.zeros(128, device="meta")], "expected finite"),
        ([torch.full((128,), 1e300, dtype=torch.float64)], "expected finite"),
    ],
)
def test_what_is_no_prompt_is_refused_before_the_backbone_runs(tiny_model, segment, monkeypatch, prompts, message):
    images = Calls(monkeypatch, tiny_model, "activations")
    with pytest.raises(ClipSegError, match=message):
        segment(PHOTO, prompts)
    assert not images.rows


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, 400), st.integers(0, 255))), st.text(max_size=300))
def test_whatever_the_bytes_a_result_or_our_error(tiny_model, change, phrase):
    file = io.BytesIO()
    Image.fromarray(PHOTO[:9, :9]).save(file, format="PNG")
    image = change
    if isinstance(change, tuple):
        whole = bytearray(file.getvalue())
        whole[change[0] % len(whole)] = change[1]
        image = bytes(whole)
    try:
        found = Segmenter(tiny_model)(image, [phrase])
    except ClipSegError:
        return
    assert found.shape[0] == 1
    assert found.isfinite().all()
