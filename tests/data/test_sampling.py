"""The stream of indices: complete, resumable, independent of the number of processes."""

from itertools import chain, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipseg.data.sampling import StreamSampler, shard
from clipseg.errors import ClipSegError


def test_each_epoch_holds_each_item_once_and_batches_reach_over_its_end() -> None:
    batches = list(islice(StreamSampler(5, batch_size=3), 5))
    assert batches[1] == [(0, 3), (0, 4), (1, 0)]
    assert [index for batch in batches for index in batch] == [(epoch, item) for epoch in range(3) for item in range(5)]


@given(n=st.integers(1, 50), share=st.integers(1, 8), world=st.integers(1, 4), start=st.integers(0, 30))
def test_ranks_together_read_what_one_process_reads(n: int, share: int, world: int, start: int) -> None:
    size = share * world
    whole = list(islice(StreamSampler(n, batch_size=size), start, start + 3))
    parts = [list(islice(StreamSampler(n, batch_size=size, rank=r, world_size=world, start=start), 3)) for r in range(world)]
    for step in range(3):
        assert all(len(part[step]) == share for part in parts)
        assert sorted(chain.from_iterable(part[step] for part in parts)) == sorted(whole[step])


def test_a_stream_started_late_is_the_rest_of_the_stream() -> None:
    assert list(islice(StreamSampler(7, batch_size=4, start=3), 4)) == list(islice(StreamSampler(7, batch_size=4), 3, 7))


def test_each_iteration_starts_again() -> None:
    sampler = StreamSampler(7, batch_size=4)
    assert next(iter(sampler)) == next(iter(sampler))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(
        ClipSegError,
        match=r"batches of 10 items cannot be .* by 4 processes; choose .* multiple of 4 times",
    ):
        StreamSampler(7, batch_size=10, world_size=4)
    with pytest.raises(ClipSegError, match="no items"):
        StreamSampler(0, batch_size=4)


@given(n=st.integers(0, 50), world=st.integers(1, 9))
def test_shards_hold_each_item_once(n: int, world: int) -> None:
    assert sorted(i for rank in range(world) for i in shard(n, rank, world)) == list(range(n))
