"""A released folder: what it holds, that it loads back to the same model, and what is refused."""

import json

import pytest
import torch

import clipseg
from clipseg.__main__ import main
from clipseg.files import write_json
from clipseg.run.checkpoint import as_plain, save_checkpoint


@pytest.fixture
def run(tiny_model, tmp_path):
    """A run folder as train.py leaves it, without having trained."""
    state = {
        "model": tiny_model.decoder.state_dict(),
        "model_config": as_plain(tiny_model.config),
        "backbone_checksum": tiny_model.backbone.checksum(),
    }
    save_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt", state | {"step": 5})
    config = {"data": {"root": "/somewhere/VGPhraseCut_v0", "train_split": "train"}, "training": {"steps": 5}}
    write_json(tmp_path / "run" / "provenance.json", {"experiment": "tiny", "seed": 3, "commit": "abc", "config": config})
    figures = {"samples": 4, "seconds": 1.0, "threshold": 0.3, "miou": 0.5, "released/miou": 0.4}
    write_json(tmp_path / "run" / "eval" / "test" / "metrics.json", figures)
    return tmp_path / "run"


def test_a_release_loads_back_and_says_what_it_is(run, tiny_model, tmp_path, capsys):
    assert main(["release", str(run), str(tmp_path / "out"), "--licence", "cc-by-4.0"]) == 0
    again = clipseg.load(tmp_path / "out")
    assert again.config == tiny_model.config
    images, condition = torch.rand(1, 3, 64, 64), torch.randn(1, again.backbone.embed_dim)
    assert torch.equal(again(images, condition), tiny_model(images, condition))
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "license: cc-by-4.0",
        "VGPhraseCut_v0, split train, 5 steps",
        "3, abc",
        "mIoU",
        "50.0",
        "40.0",
        "Limits",
        "limits",
    ):
        assert said.lower() in card.lower()
    assert "/somewhere" not in card
    assert json.loads((tmp_path / "out" / "config.json").read_text())["metrics"]["test"]["miou"] == 0.5


def test_a_release_overwrites_nothing_and_needs_a_run(run, tmp_path, capsys):
    assert main(["release", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "not a run folder" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert main(["release", str(run), str(tmp_path / "full")]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["provenance.json", "eval/test/metrics.json"])
@pytest.mark.parametrize("content", ["[]", "{}", '{"config": 5}', '{"config": {"data": {"root": 5}}}', "{"])
def test_a_run_with_damaged_files_is_one_line(run, tmp_path, capsys, name, content):
    if name.startswith("eval") and content.startswith('{"'):
        pytest.skip("figures have no parts")
    (run / name).write_text(content)
    assert main(["release", str(run), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
