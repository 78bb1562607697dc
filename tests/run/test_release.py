"""A released folder: what it holds, that it loads back to the same model, and what is refused."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import torch
import yaml
from places import ROOT

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


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as uploading and downloading a model asks for; what was uploaded lies in `files`."""

    files: ClassVar[dict[str, bytes]] = {}
    tokens: ClassVar[set[str | None]] = set()
    commits: ClassVar[list[str]] = []

    def log_message(self, *arguments):
        pass

    def answer(self, content=b"", status=200, **headers):
        self.send_response(status)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        for name, value in {"Content-Length": len(body), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub = f"http://{self.headers['Host']}"
        self.tokens.add(self.headers["Authorization"])
        if self.path.endswith("/preupload/main"):
            entries = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            return self.answer({"files": entries})
        if self.path.endswith("/commit/main"):
            self.commits.append(self.path)
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer({"commitUrl": f"{hub}/me/tiny/commit/{'1' * 40}", "commitOid": "1" * 40, "success": True})
        return self.answer({"url": f"{hub}/me/tiny", "errors": [], "warnings": []})

    def do_GET(self):
        name = self.path.split("?")[0].rpartition("/")[2]
        if "/resolve/" in self.path and name in self.files:
            etag = hashlib.sha256(self.files[name]).hexdigest()
            return self.answer(self.files[name], ETag=f'"{etag}"', X_Repo_Commit="1" * 40)
        siblings = [{"rfilename": name} for name in [".gitattributes", *self.files]]
        tree = [{"type": "file", "path": name, "size": len(content), "oid": "1"} for name, content in self.files.items()]
        found = tree if "/tree/" in self.path else {"id": "me/tiny", "sha": "1" * 40, "siblings": siblings}
        return self.answer(found, 404 if "/resolve/" in self.path else 200)

    do_HEAD = do_GET


PUSH_AND_LOAD = """
import sys, time, clipseg, torch
from clipseg.__main__ import main
assert main(["release", sys.argv[1], "--push", "me/tiny"]) == 0
model, own = clipseg.load("me/tiny"), clipseg.load(sys.argv[1])
assert all(torch.equal(a, b) for a, b in zip(model.decoder.parameters(), own.decoder.parameters(), strict=True))
assert main(["release", sys.argv[1], "--push", "me/tiny"]) == 2
assert main(["release", sys.argv[1], "--push", "me/tiny", "--overwrite"]) == 0
"""


@pytest.mark.slow
def test_a_release_is_pushed_to_a_hub_and_taken_back_from_it(run, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_mine", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PUSH_AND_LOAD, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"http://127.0.0.1:{server.server_port}/me/tiny"
    assert "holds README.md, config.json, model.safetensors; choose another name, or add --overwrite" in done.stderr
    assert len(Hub.commits) == 2  # the refused one uploaded nothing
    assert Hub.tokens == {"Bearer hf_mine"}
    card = Hub.files["README.md"].decode()
    (entry,) = yaml.safe_load(card.split("---")[1])["model-index"]
    assert entry["name"] == "tiny"
    (result,) = entry["results"]
    assert result["dataset"] == {"type": "VGPhraseCut_v0", "name": "VGPhraseCut_v0", "split": "test"}
    assert result["metrics"] == [{"type": "miou", "value": 0.5}]


def test_a_hub_that_cannot_be_reached_is_told_in_seconds(run, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    start = time.monotonic()
    assert main(["release", str(run), "--push", "me/tiny"]) == 2
    assert time.monotonic() - start < 5
    error = capsys.readouterr().err
    assert "me/tiny: not uploaded to http" in error
    assert error.count("\n") == 1
    assert main(["release", str(run)]) == 2
    assert "nowhere to release to; name a new folder OUT, or --push" in capsys.readouterr().err
