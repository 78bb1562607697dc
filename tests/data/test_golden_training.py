"""Negatives and supports of training, as they were really drawn: the law, not the stream (golden case 3)."""

from collections import Counter

import numpy as np
import pytest
import torch
from golden_data import GOLDEN, values
from scipy import stats

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut

DRAWS = 4000


@pytest.fixture(scope="module")
def data() -> PhraseCut:
    return PhraseCut(GOLDEN / "08_phrasecut", ReaderOptions(training=True, negatives=0.2, visual_support=True), split="train")


@pytest.mark.parametrize("name", values("03_training")["queries"])
def test_golden_law_of_negatives_and_supports(data: PhraseCut, name: str, monkeypatch):
    """A negative is uniform over the other distinct phrases; a support over all tasks of the phrase, the query's included."""
    query, supports = values("03_training")["queries"][name], Counter()
    monkeypatch.setattr(data, "_support", lambda candidates, row, rng: supports.update(choose(candidates, rng)))
    row = next(row for row, key in enumerate(data.tasks.keys) if key.split("/")[1] == str(query["task"]).split("/")[-1])
    mask = np.ones((8, 8), dtype=np.uint8)
    rng = np.random.default_rng(5)
    phrases = Counter(data._task(row, torch.from_numpy(mask), rng).phrase for _ in range(DRAWS))
    negatives = [phrases[phrase] for phrase in set(data.tasks.phrases) if phrase != query["phrase"]]
    used = len({data.tasks.phrases[row] for row in data.task_rows.tolist()})
    assert len([count for count in negatives if count]) == used - 1
    assert stats.binomtest(sum(negatives), DRAWS, 0.2).pvalue > 1e-4
    assert stats.chisquare([count for count in negatives if count]).pvalue > 1e-4
    own = [supports[r] for r in data.task_rows.tolist() if data.tasks.phrases[r] == query["phrase"]]
    if len(own) > 1:
        assert row in supports, "the query may be its own support in training"
        assert stats.chisquare(own).pvalue > 1e-4


def choose(candidates: np.ndarray, rng: np.random.Generator) -> list[int]:
    return [] if len(candidates) < 2 else [int(rng.choice(candidates))]
