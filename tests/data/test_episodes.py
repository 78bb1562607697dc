"""Episodes: drawn alike from all there is, never of an image alone, the same from the same seed; read back as written."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch

from clipseg.data.readers.episodes import Episode, EpisodeReader, all_episodes, draw_episodes, draw_support, read_episodes
from clipseg.errors import ClipSegError

HOLDERS = {"cat": ["1", "2", "3"], "tv monitor": ["2", "4"]}
ABOUT = {"benchmark": "x", "split": "val", "fold": 0}


class Shades:
    """Image n is gray n, and shows every name in its first n pixels; one pixel is not counted."""

    image_ids = tuple("01234")

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


def test_drawn_episodes_are_alike_over_classes_and_images():
    def drawn(seed):
        return list(itertools.islice(draw_episodes(HOLDERS, np.random.default_rng(seed)), 6000))

    episodes = drawn(1)
    assert episodes == drawn(1) != drawn(2)
    pairs = Counter((e.name, e.query, e.support) for e in episodes)
    assert len(pairs) == 6 + 2
    assert all(400 < n < 600 for (name, *_), n in pairs.items() if name == "cat")
    assert all(1350 < n < 1650 for (name, *_), n in pairs.items() if name != "cat")


def test_supports_are_other_images_each_as_likely():
    rng = np.random.default_rng(0)
    found = Counter(draw_support(["1", "2", "3"], "2", rng) for _ in range(600))
    assert found.keys() == {"1", "3"}
    assert all(240 < count < 360 for count in found.values())


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


def test_episodes_are_read_as_they_were_written(tmp_path):
    asked = [("3", "cat", "1"), ("4", "tv monitor", "2"), ("3", "cat", "2")]
    episodes = [Episode(query=query, name=name, support=support) for query, name, support in asked]
    EpisodeReader(Shades(), episodes, about=ABOUT, seed=7, visual_support=False).save(tmp_path / "episodes.json")
    written = json.loads((tmp_path / "episodes.json").read_text())
    assert {name: written[name] for name in (*ABOUT, "seed")} == ABOUT | {"seed": 7}
    assert read_episodes(tmp_path / "episodes.json", Shades(), HOLDERS, ABOUT) == episodes


GOOD = {"query": "3", "name": "cat", "support": "1"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"name": "dog"}, "episode 0: class 'dog' is none of cat, tv monitor"),
        ({"name": None}, "class None is none of"),
        ({"query": "9"}, "query image '9' is not in this split"),
        ({"query": "../../3"}, None),
        ({"query": "val2014/3.jpg"}, None),
        ({"other": 1}, None),
        ({"support": None}, "support image None is not in this split"),
        ({"support": "0"}, "support image '0' does not show 'cat'"),
        ({"query": "0"}, "query image '0' does not show 'cat'"),
        ({"support": "a/3.png"}, "image '3' is its own support"),
    ],
)
def test_episodes_must_fit_the_data(tmp_path, edit, message):
    path = tmp_path / "episodes.json"
    path.write_text(json.dumps(ABOUT | {"episodes": [GOOD | edit]}))
    if message is None:
        assert read_episodes(path, Shades(), HOLDERS, ABOUT) == [Episode(**GOOD)]
        return
    with pytest.raises(ClipSegError, match=message) as error:
        read_episodes(path, Shades(), HOLDERS, ABOUT)
    assert str(error.value).startswith(f"{path}: episode 0: ")
    assert str(error.value).endswith("draw new episodes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "not valid JSON"),
        ("[]", "not a file of episodes"),
        (json.dumps(ABOUT | {"episodes": []}), "not a file of episodes"),
        (json.dumps(ABOUT | {"episodes": [{"query": "3", "name": "cat"}]}), "episode 0: expected an object of query, name and"),
        (json.dumps(ABOUT | {"episodes": [GOOD], "fold": 1}), "episodes of fold 1, but asked for is 0"),
        (json.dumps(ABOUT | {"episodes": [GOOD]})[:-9], "not valid JSON"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, content, message):
    (tmp_path / "episodes.json").write_text(content)
    with pytest.raises(ClipSegError, match=message):
        read_episodes(tmp_path / "episodes.json", Shades(), HOLDERS, ABOUT)
