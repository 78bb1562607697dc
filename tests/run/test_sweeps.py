"""Sweeps: a folder a job, every job tried, finished jobs left alone, the same through submitit as one after the other."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from made_data import SMALL_TRAINING
from places import CONFIGS

import train

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(call, phrasecut_root):
    """Run `train.py -m` on a tiny data set -> (status, standard output, standard error)."""
    root = phrasecut_root(n=2)
    return lambda *overrides: call(train, "-m", *SMALL_TRAINING, "data.val_split=val", f"data.root={root}", *overrides)


def test_each_job_has_a_folder_of_its_own(sweep):
    assert sweep("seed=0,1")[0] == 0
    runs = sorted(Path("outputs/mini_random").glob("*/*"))
    assert [run.name for run in runs] == ["0", "1"]
    assert [re.search("^seed: .", (run / "config.yaml").read_text(), re.M)[0] for run in runs] == ["seed: 0", "seed: 1"]
    assert all((run / "checkpoints" / "last.pt").is_file() for run in runs)
    assert {path.name for path in Path().iterdir()} == {"outputs", "phrasecut"}


def test_all_jobs_are_tried_and_a_second_call_does_what_is_left(sweep):
    asked = ["training.lr=0.001,0.0005,0.00001", "out=lr/${training.lr}", "resume=auto"]
    status, out, err = sweep(*asked)
    assert status == 2
    assert "training.final_lr=0.0001 must lie between 0 and training.lr=1e-05" in err
    assert "job 2 of the sweep failed" in err
    assert "finished already" not in out
    status, out, _ = sweep(*asked[1:], "training.lr=0.001,0.0005,0.0002")
    assert status == 0
    assert out.splitlines() == ["lr/0.001: finished already", "lr/0.0005: finished already"]
    assert Path("lr/0.0002/checkpoints/last.pt").is_file()


def test_one_folder_is_not_taken_for_two_jobs(sweep):
    status, _, err = sweep("training.lr=0.001,0.0005", "out=same", "resume=auto")
    assert status == 2
    assert "out=same holds a run with training.lr=0.001, not 0.0005; name in `out` what differs" in err


def test_a_sweep_does_not_run_under_torchrun(sweep, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, err = sweep("seed=0,1")
    assert status == 2
    assert "start torchrun once for each job" in err


def test_submitit_runs_the_same_jobs(sweep, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[slurm]'")
    monkeypatch.setenv("PYTHONPATH", str(CONFIGS.parent))  # where its processes find `train`
    asked = ["seed=0,1", "out=seeds/${seed}", "resume=auto"]
    assert sweep("hydra/launcher=submitit_local", *asked)[0] == 0
    assert all(Path("seeds", seed, "checkpoints", "last.pt").is_file() for seed in "01")
    status, out, _ = sweep(*asked)
    assert (status, out) == (0, "seeds/0: finished already\nseeds/1: finished already\n")


def test_jobs_of_slurm_are_put_back_into_the_queue():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[slurm]'")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        launcher = compose("train", ["hydra/launcher=slurm", "data.root=x"], return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert launcher.max_num_timeout > 0
    assert launcher.additional_parameters.requeue


def test_the_resolved_config_can_be_shown(call, capsys):
    status, out, error = call(train, "--cfg", "job", "--resolve", "out=shown")
    assert (status, error) == (0, "")
    assert "out: shown" in out
    assert "${" not in out
