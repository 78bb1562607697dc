"""Exported files: onnxruntime computes from them what torch computes, at every size."""

import json
import warnings
from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer

from clipseg.commands import export as command
from clipseg.errors import ClipSegError
from clipseg.network.backbone import CLIPBackbone
from clipseg.network.config import ModelConfig
from clipseg.network.formats import onnx as export
from clipseg.network.formats.onnx import write_graph
from clipseg.network.model import CLIPSeg

pytestmark = pytest.mark.slow

NATIVE = 64
TEXTS = [
    "a dog",
    "the sky, 3 cats' tails!",
    "",
    "a text that is longer than the context of this narrow clip, and so is cut at its end",
]
TOLERANCE = 1e-4


def narrow_model(**config) -> CLIPSeg:
    """Three blocks of which two are exported, with weights large enough that logits spread."""
    vision = CLIPVisionCfg(image_size=NATIVE, patch_size=16, width=32, layers=3, head_width=16)
    text = CLIPTextCfg(context_length=16, vocab_size=49408, width=32, heads=2, layers=1)
    clip = CLIP(32, vision, text, quick_gelu=True)
    backbone = CLIPBackbone(clip, SimpleTokenizer(context_length=16), name="narrow")
    model = CLIPSeg(backbone, ModelConfig(**({"extract_layers": (0, 1), "reduce_dim": 16} | config)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter.shape[-1] if parameter.ndim == 2 else parameter[0].numel()
                parameter.normal_(0, (4 if ".head" in name else 1) / min(fan_in, 256) ** 0.5, generator=generator)
    return model


class Exported(NamedTuple):
    model: CLIPSeg
    folder: Path
    sessions: dict[str, InferenceSession]


@pytest.fixture(scope="module")
def refined(tmp_path_factory) -> Exported:
    model, folder = narrow_model(head="refined"), tmp_path_factory.mktemp("onnx") / "narrow"
    # As training leaves it: the export must switch dropout off by itself.
    export.export_onnx(model.train(), folder)
    assert model.decoder.training
    return Exported(
        model.eval(), folder, {name: open_session(folder, name) for name in ("image_encoder", "text_encoder", "decoder")}
    )


def open_session(folder: Path, name: str) -> InferenceSession:
    return InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(autouse=True)
def _texts_are_cut():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ text\(s\) cut")
        yield


def decode(session: InferenceSession, activations, condition, image_index, grid) -> np.ndarray:
    names = [tensor.name for tensor in session.get_inputs() if tensor.name.startswith("activation_")]
    feed = dict(zip(names, activations, strict=True)) | {
        "condition": condition,
        "image_index": np.array(image_index),
        "grid": np.array(grid),
    }
    (logits,) = session.run(["logits"], feed)
    return logits


def difference(found: np.ndarray, expected: torch.Tensor) -> float:
    assert found.shape == tuple(expected.shape)
    return float(np.abs(found - expected.detach().numpy()).max())


def random_images(count: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("batch", "size", "image_index"),
    [
        (1, (NATIVE, NATIVE), [0]),
        (2, (NATIVE, NATIVE), [1, 0]),
        (1, (112, 112), [0, 0, 0, 0]),
        (2, (48, 112), [1, 1, 0]),
        (3, (112, 48), [2, 0, 2, 1]),
        (2, (16, 32), [0, 1, 1]),
        (1, (16, 16), [0, 0]),
    ],
)
@torch.no_grad()
def test_the_three_files_give_torchs_logits(refined: Exported, batch, size, image_index):
    images, texts = random_images(batch, size), TEXTS[: len(image_index)]
    expected = refined.model.decode(
        refined.model.activations(images), refined.model.encode_text(texts), torch.tensor(image_index)
    )
    activations = refined.sessions["image_encoder"].run(None, {"pixels": images.numpy()})
    (condition,) = refined.sessions["text_encoder"].run(None, {"tokens": refined.model.backbone.tokenize(texts).numpy()})
    logits = decode(refined.sessions["decoder"], activations, condition, image_index, (size[0] // 16, size[1] // 16))
    assert expected.min() < -1 < 1 < expected.max(), "logits near 0 would prove nothing"
    assert difference(logits, expected) <= TOLERANCE
    for found, wanted in zip(activations, refined.model.activations(images), strict=True):
        assert difference(found, wanted) <= TOLERANCE


def test_texts_of_any_length_and_number(refined: Exported):
    for texts in (TEXTS, TEXTS[1:2], TEXTS * 3):
        (found,) = refined.sessions["text_encoder"].run(None, {"tokens": refined.model.backbone.tokenize(texts).numpy()})
        assert difference(found, refined.model.encode_text(texts)) <= TOLERANCE


@torch.no_grad()
def test_the_plain_head_and_a_single_read_out(tmp_path):
    model = narrow_model(head="plain", extract_layers=(1,)).eval()
    graph = export.graphs_of(model)[2]
    write_graph(graph, tmp_path / "decoder.onnx", patch_size=16, native_grid=(4, 4))
    activations, condition = model.activations(random_images(2, (32, 80))), model.encode_text(TEXTS[:3])
    expected = model.decode(activations, condition, torch.tensor([1, 1, 0]))
    tensors = [tokens.numpy() for tokens in activations]
    found = decode(open_session(tmp_path, "decoder"), tensors, condition.numpy(), [1, 1, 0], (2, 5))
    assert expected.min() < -1 < 1 < expected.max()
    assert difference(found, expected) <= TOLERANCE


def test_the_config_says_how_to_feed_the_files(refined: Exported):
    config = json.loads((refined.folder / "config.json").read_text(encoding="utf-8"))
    for name, session in refined.sessions.items():
        graph = config["graphs"][name]
        assert graph["inputs"] == {tensor.name: tensor.shape for tensor in session.get_inputs()}
        assert graph["outputs"] == {tensor.name: tensor.shape for tensor in session.get_outputs()}
    tokens = refined.model.backbone.tokenize(["dog", TEXTS[3]])
    start, end, length = config["start_token"], config["end_token"], config["context_length"]
    assert tokens.shape[1] == length
    assert tokens[0].tolist() == [start, tokens[0, 1], end] + [0] * (length - 3)
    assert (tokens[1, 0], tokens[1, -1]) == (start, end)
    assert (config["patch_size"], config["image_size"], config["threshold"]) == (16, 352, 0.3)
    assert config["image_mean"] == [0.485, 0.456, 0.406]


def test_the_files_hold_what_they_need_and_nothing_of_this_machine(refined: Exported):
    assert sorted(path.name for path in refined.folder.iterdir()) == [
        "config.json",
        "decoder.onnx",
        "image_encoder.onnx",
        "text_encoder.onnx",
    ]
    encoder = (refined.folder / "image_encoder.onnx").read_bytes()
    assert b"resblocks.1." in encoder
    assert b"resblocks.2." not in encoder, "a block behind the deepest read-out"
    here = str(Path(export.__file__).parent).encode()
    for path in refined.folder.iterdir():
        assert here not in path.read_bytes()
    assert list(refined.folder.parent.iterdir()) == [refined.folder], "left over"


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt", tmp_path / "notes.txt" / "deeper"):
        with pytest.raises(ClipSegError, match=r"exists and is not|cannot be written"):
            export.export_onnx(narrow_model(), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    def fail(graph, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_graph", fail)
    with pytest.raises(ClipSegError, match="No space left"):
        export.export_onnx(narrow_model(), tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named_with_their_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClipSegError, match=r"onnx and onnxscript.*clipseg\[onnx\]"):
        export.export_onnx(narrow_model(), tmp_path / "onnx")


def test_a_foreign_tokenizer_is_refused(tmp_path):
    model = narrow_model()
    model.backbone.tokenizer = lambda texts: torch.zeros(len(texts), 16, dtype=torch.int64)
    with pytest.raises(ClipSegError, match="'narrow'"):
        export.export_onnx(model, tmp_path / "onnx")


def test_the_command_exports_the_weights_asked_for(tmp_path, monkeypatch, capsys):
    def write(model, folder):
        folder.mkdir()
        (folder / "decoder.onnx").write_bytes(model)

    monkeypatch.setattr("clipseg.network.weights.load", lambda weights: weights.encode())
    monkeypatch.setattr(export, "export_onnx", write)
    parser = ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["--onnx", str(tmp_path / "onnx"), "--weights", "my.pth"])) == 0
    assert (tmp_path / "onnx" / "decoder.onnx").read_bytes() == b"my.pth"
    assert "decoder.onnx" in capsys.readouterr().out
