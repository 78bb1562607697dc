"""Episodes: drawn alike from all there is, never of an image alone, the same from the same seed."""

from collections import Counter

import numpy as np
import pytest
import torch

from clipseg.data.readers.episodes import Episode, EpisodeReader, all_episodes, draw_episodes, with_supports
from clipseg.errors import ClipSegError

HOLDERS = {"cat": ["1", "2", "3"], "tv monitor": ["2", "4"]}
ABOUT = {"benchmark": "x", "split": "val", "fold": 0}


class Shades:
    """Image n is gray n, and shows every name in its first n pixels; one pixel is not counted."""

    def read_image(self, image_id):
        return torch.full((3, 2, 4), int(image_id), dtype=torch.uint8)

    def read_masks(self, image_id, names):
        mask = (torch.arange(8) < int(image_id)).byte().view(2, 4)
        return [mask.clone() for _ in names], torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.uint8)


def test_every_image_is_asked_for_what_it_shows():
    assert [(e.query, e.name, e.support) for e in all_episodes(HOLDERS)] == [
        ("1", "cat", None),
        ("2", "cat", None),
        ("2", "tv monitor", None),
        ("3", "cat", None),
        ("4", "tv monitor", None),
    ]


def test_supports_are_other_images_each_as_likely():
    found = Counter()
    for seed in range(600):
        for episode in with_supports(all_episodes(HOLDERS), HOLDERS, seed=seed, where="here"):
            assert episode.support != episode.query
            assert episode.support in HOLDERS[episode.name]
            found[episode.query, episode.name, episode.support] += 1
    assert len(found) == 3 * 2 + 2 * 1
    assert all(240 < found["1", "cat", support] < 360 for support in "23")


def test_drawn_episodes_are_alike_over_classes_and_images():
    episodes = draw_episodes(HOLDERS, lambda image_id, name: False, count=6000, seed=1, where="here")
    assert episodes == draw_episodes(HOLDERS, lambda image_id, name: False, count=6000, seed=1, where="here")
    pairs = Counter((e.name, e.query, e.support) for e in episodes)
    assert len(pairs) == 6 + 2
    assert all(400 < n < 600 for (name, *_), n in pairs.items() if name == "cat")
    assert all(1350 < n < 1650 for (name, *_), n in pairs.items() if name != "cat")


def test_images_without_a_pixel_are_not_drawn():
    episodes = draw_episodes(HOLDERS, lambda i, name: (i, name) == ("2", "cat"), count=200, seed=0, where="here")
    assert not [e for e in episodes if e.name == "cat" and "2" in (e.query, e.support)]
    with pytest.raises(ClipSegError, match="here: class 'tv monitor' has fewer than two images"):
        draw_episodes(HOLDERS, lambda i, name: i == "2", count=200, seed=0, where="here")


def test_items_are_images_with_all_their_episodes():
    asked = [("3", "cat", "1"), ("4", "tv monitor", "2"), ("3", "cat", "2"), ("3", "tv monitor", "4"), ("3", "cat", "1")]
    episodes = [Episode(query=query, name=name, support=support) for query, name, support in asked]
    data = EpisodeReader(Shades(), episodes, about=ABOUT, seed=0, visual_support=True)
    assert data.image_ids.tolist() == ["3", "4"]
    sample = data[5, 0]
    assert [task.key for task in sample.tasks] == ["val/3__cat", "val/3__cat__2", "val/3__tv_monitor", "val/3__cat__3"]
    assert [int(task.support.image[0, 0, 0]) for task in sample.tasks] == [1, 2, 4, 1]
    assert [int(task.support.mask.sum()) for task in sample.tasks] == [1, 2, 4, 1]
    assert int(sample.valid.sum()) == 7
    assert len({task.seed for task in sample.tasks}) == 4
    assert [task.seed for task in data[0].tasks] == [task.seed for task in sample.tasks]
    text = EpisodeReader(Shades(), episodes, about=ABOUT, seed=0, visual_support=False)
    assert all(task.support is None for task in text[0].tasks)


def test_an_empty_support_and_no_episodes_are_errors():
    data = EpisodeReader(Shades(), [Episode(query="1", name="cat", support="0")], about=ABOUT, seed=0, visual_support=True)
    with pytest.raises(ClipSegError, match="support image 0: its mask of 'cat' is empty"):
        data[0]
    with pytest.raises(ClipSegError, match="split val shows none"):
        EpisodeReader(Shades(), [], about=ABOUT, seed=0, visual_support=True)
    assert np.issubdtype(data.image_ids.dtype, np.str_)
