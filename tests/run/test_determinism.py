"""The same seed gives the same bits on a CPU, however many workers read."""

import pytest
import torch
from made_runs import small_config

import train
from clipseg.run.checkpoint import newest_whole
from clipseg.run.training import set_deterministic

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def as_before():
    yield
    set_deterministic(False)


def test_any_number_of_workers_gives_the_same_bits(phrasecut_root, tmp_path):
    root = phrasecut_root(n=4)
    states, losses = [], []
    for workers in (0, 1, 2):
        data = {"workers": workers, "visual_support": True, "negatives": 0.3}
        config = small_config(root, tmp_path / f"{workers}", data=data, steps=5)
        config.deterministic = True
        train.train(config)
        assert torch.are_deterministic_algorithms_enabled()
        states.append(newest_whole(tmp_path / f"{workers}"))
        log = states[-1]["log"]["noted"]
        losses.append((log["train/loss"], log["train/iou_fg"], log["train/gradient_norm"]))
    for state in states[1:]:
        for name, tensor in states[0]["model"].items():
            assert torch.equal(tensor, state["model"][name]), name
    assert losses[0] == losses[1] == losses[2]


def test_the_key_holds_for_its_own_run_alone(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    set_deterministic(True)
    assert torch.backends.cudnn.deterministic
    set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
