"""The walls that fine-tuning is measured on: the same for a seed, with masks that fit, in a form that is found."""

import numpy as np
import pytest

from clipseg.data.readers.folder import FolderData, find_format
from clipseg.errors import ClipSegError
from clipseg.tools import draw_walls


def test_walls_are_written_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(draw_walls, "SPLITS", {"train": 3, "test": 2})
    for name in ("one", "two"):
        draw_walls.write_walls(tmp_path / name, seed=4)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 5 + 10 + 2
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    assert find_format(tmp_path / "one") == "JSON Lines"
    rng = np.random.default_rng(4)
    for split in ("train", "test"):
        data = FolderData(tmp_path / "one", split=split)
        for item in range(len(data)):
            photo, masks = draw_walls.draw_wall(rng)
            sample = data[0, item]
            assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), photo)
            assert {task.phrase: task.mask.sum().item() for task in sample.tasks} == {k: int(m.sum()) for k, m in masks.items()}
            assert not (masks["joint"] & masks["crack"]).any()
            assert masks["crack"].sum() > 90  # half the wall's height
    with pytest.raises(ClipSegError, match="not empty"):
        draw_walls.write_walls(tmp_path / "one")
