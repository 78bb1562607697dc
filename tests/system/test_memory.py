"""Nothing grows: memory, objects and open files are after 2,000 steps, and after 2,000 samples, what they were early on."""

import ctypes
import gc
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import Sample
from clipseg.network.model import CLIPSeg, create_model
from clipseg.run.conditioning import Conditioner
from clipseg.run.distributed import Processes
from clipseg.run.evaluation import Evaluation
from clipseg.run.interruption import Interruption
from clipseg.run.loading import IN_PROCESS
from clipseg.run.log import RunLog
from clipseg.run.settings import PromptSettings, TrainingSettings
from clipseg.run.training import train_decoder

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
MIB = 2**20


def use() -> tuple[int, int, int]:
    """Resident memory in bytes, objects that the garbage collector tracks, open files."""
    gc.collect()
    with suppress(AttributeError):  # glibc's own: what was freed, by this test or by those before it, is given back
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(gc.get_objects()), len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def model() -> CLIPSeg:
    return create_model("mini", None, extract_layers=(0,), reduce_dim=4, image_size=32)


@pytest.mark.slow
def test_training_does_not_grow(model: CLIPSeg, phrasecut_root: Callable[..., Path], tmp_path: Path) -> None:
    data = PhraseCut(phrasecut_root(2, splits=("train",)), ReaderOptions(training=True, negatives=0.2))
    seen: list[tuple[int, int, int]] = []

    def validate(_: int) -> float:
        seen.append(use())
        return 0.0

    settings = TrainingSettings(
        steps=2000, batch_size=2, log_every=20, validate_every=250, checkpoint_every=250, amp="off", lr=1e-4, final_lr=0
    )
    with RunLog(tmp_path / "run", steps=2000, start=0, every=20, processes=Processes()) as log:
        train_decoder(
            model,
            data,
            settings=settings,
            seed=0,
            loader=IN_PROCESS,
            threshold=0.3,
            folder=tmp_path / "run",
            state=None,
            condition=Conditioner(PromptSettings(templates="shuffled")),
            validate=validate,
            log=log,
            processes=Processes(),
            interruption=Interruption(""),
        )
    # Allocators have come to rest after 750 steps, whatever ran in this process before.
    (early, objects, files), (late, more_objects, more_files) = seen[2], seen[-1]
    assert late - early < 8 * MIB, [memory // MIB for memory, *_ in seen]
    assert more_objects - objects < 300, [count for _, count, _ in seen]
    assert more_files == files, [count for *_, count in seen]


class Repeated(Dataset[Sample]):
    """A data set `times` times, under new keys, that notes what the process uses at every hundredth image."""

    def __init__(self, data: PhraseCut, times: int) -> None:
        self.data, self.times = data, times
        self.image_ids = data.image_ids.repeat(times)
        self.seen: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return len(self.data) * self.times

    def __getitem__(self, index: Any) -> Sample:
        turn, item = divmod(index[1], len(self.data))
        if index[1] % 100 == 0:
            self.seen.append(use())
        sample = self.data[item]
        for task in sample.tasks:
            object.__setattr__(task, "key", f"{task.key}__{turn}")
        return sample


@pytest.mark.slow
def test_evaluation_does_not_grow(model: CLIPSeg, tiny_evaluation: Evaluation) -> None:
    data = Repeated(tiny_evaluation.data, 290)
    condition = Conditioner(PromptSettings(text_weight=[0.0, 0.0]))
    results = replace(tiny_evaluation, model=model, data=data, condition=condition).run()
    assert len(results) >= 2000
    # Allocators and caches have come to rest after two hundred images, whatever ran in this process before.
    (early, objects, files), (late, more_objects, more_files) = data.seen[2], data.seen[-1]
    # Each image leaves one row of columns, and nothing else.
    images = 100 * (len(data.seen) - 3)
    assert late - early < 6 * MIB, [memory // MIB for memory, *_ in data.seen]
    assert (more_objects - objects) / images < 8, [count for _, count, _ in data.seen]
    assert more_files == files, [count for *_, count in data.seen]
