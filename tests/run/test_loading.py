"""Images that cannot be read in the middle of a run: it stops, or each is named, counted and left out."""

import numpy as np
import pytest
import torch

from clipseg.data.sample import Sample, Task
from clipseg.errors import ClipSegError
from clipseg.run.distributed import Processes
from clipseg.run.loading import MOST_IN_A_ROW, evaluation_batches, read_each, training_batches
from clipseg.run.settings import LoaderSettings


class Holed:
    """Items 0 to n - 1, of which those in `broken` cannot be read."""

    def __init__(self, n, broken):
        self.image_ids = np.arange(n)
        self.broken = broken

    def __len__(self):
        return len(self.image_ids)

    def __getitem__(self, index):
        item = index[1] if isinstance(index, tuple) else index
        if item in self.broken:
            raise ClipSegError(f"{item}.jpg: truncated")
        task = Task(key=f"{item}", phrase="", mask=torch.zeros(4, 4), group="", seed=0)
        return Sample(image_key=f"{item}", image=torch.zeros(3, 4, 4), tasks=[task])


def leaving_out(workers):
    return LoaderSettings(workers=workers, unreadable="leave_out")


def trained_on(data, steps, loader, left_out):
    batches = training_batches(
        data,
        batch_size=3,
        processes=Processes(),
        start=0,
        loader=loader,
        left_out=left_out,
        device=torch.device("cpu"),
    )
    return [next(batches).keys for _ in range(steps)]


def evaluated(data, loader, left_out):
    options = {"processes": Processes(), "loader": loader, "left_out": left_out, "device": torch.device("cpu")}
    return [batch.keys for batch in evaluation_batches(data, range(len(data)), **options)]


@pytest.mark.filterwarnings("ignore:5.*left out")
@pytest.mark.parametrize("workers", [0, 2])
def test_in_training_the_next_item_takes_the_place_of_one_that_is_left_out(workers):
    left_out = []
    with pytest.warns(UserWarning, match=r"1\.jpg: truncated; left out"):
        keys = trained_on(Holed(6, {1, 5}), 2, leaving_out(workers), left_out)
    assert keys == [["0", "2", "2"], ["3", "4", "0"]]
    assert left_out == ["1.jpg: truncated", "5.jpg: truncated"]


@pytest.mark.parametrize("workers", [0, 2])
def test_in_evaluation_it_is_missing(workers):
    left_out = []
    with pytest.warns(UserWarning, match=r"1\.jpg: truncated; left out"):
        assert evaluated(Holed(4, {1}), leaving_out(workers), left_out) == [["0"], ["2"], ["3"]]
    assert left_out == ["1.jpg: truncated"]


def test_by_default_it_stops():
    with pytest.raises(ClipSegError, match=r"^1\.jpg: truncated$"):
        trained_on(Holed(6, {1}), 1, LoaderSettings(workers=0), [])
    with pytest.raises(ClipSegError, match=r"^1\.jpg: truncated$"):
        evaluated(Holed(6, {1}), LoaderSettings(workers=0), [])
    with pytest.raises(ClipSegError, match=r"^1\.jpg: truncated$"):
        list(read_each(Holed(6, {1}), range(6), loader=LoaderSettings(), left_out=[]))


@pytest.mark.filterwarnings("ignore:.*left out")
def test_where_nothing_can_be_read_any_more_it_stops_all_the_same():
    gone = range(40)
    with pytest.raises(ClipSegError, match=rf"the {MOST_IN_A_ROW - 1} before it cannot be read: is data.root still there"):
        trained_on(Holed(40, gone), 1, leaving_out(0), [])
    with pytest.raises(ClipSegError, match=r"^15\.jpg: truncated; .*is data.root still there"):
        evaluated(Holed(40, gone), leaving_out(0), [])
    left_out = []
    scattered = Holed(40, range(0, 40, 2))
    assert len(list(read_each(scattered, range(40), loader=leaving_out(0), left_out=left_out))) == len(left_out) == 20
