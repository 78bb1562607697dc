"""The profile names every part of training's time once."""

import json
from types import SimpleNamespace

import pytest

from clipseg.run import profile
from clipseg.run.profile import time_shares

pytestmark = pytest.mark.slow


def event(key, cpu, device=0):
    return SimpleNamespace(key=key, cpu_time_total=cpu, device_time_total=device)


def test_shares_sum_to_one_and_the_unnamed_is_the_rest():
    events = [event("step", 100), event("backbone", 30), event("Optimizer.step#AdamW.step", 10), event("aten::mm", 25)]
    events.append(event("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 5))
    shares = time_shares(events)
    assert shares["backbone"] == pytest.approx(0.3)
    assert shares["optimiser"] == pytest.approx(0.1)
    assert shares["data"] == pytest.approx(0.05)
    assert shares["rest"] == pytest.approx(0.55)
    assert sum(shares.values()) == pytest.approx(1)


def test_on_a_gpu_a_part_takes_what_its_kernels_take():
    assert time_shares([event("step", 100), event("backbone", 2, device=60)])["backbone"] == pytest.approx(0.6)


def test_the_mode_ends_after_its_steps_and_evaluates_nothing(call, phrasecut_root, tmp_path, monkeypatch):
    import train

    monkeypatch.setattr(profile, "PROFILED", 3)
    root = phrasecut_root(n=2, splits=("train", "miniv"))
    options = ["experiment=mini", f"data.root={root}", "data.val_split=miniv", "data.workers=0", "model.image_size=64"]
    status, out, err = call(train, *options, "training.batch_size=4", "debug=profile", f"out={tmp_path / 'run'}")
    assert status == 0, err
    shares = json.loads((tmp_path / "run" / "profile" / "shares.json").read_text())
    assert all(shares[part] > 0 for part in ("data", "preparation", "backbone", "text", "decoder", "backward", "optimiser"))
    assert sum(shares.values()) == pytest.approx(1, abs=0.02)
    trace = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())
    assert sum(entry.get("name") == "step" for entry in trace["traceEvents"]) == 3
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "eval").exists()
    assert "backbone" in out


def test_another_mode_is_an_error(call):
    import train

    status, _, err = call(train, "debug=profil")
    assert status == 2
    assert "debug='profil' is unknown; expected one of profile" in err
