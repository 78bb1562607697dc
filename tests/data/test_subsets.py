"""PhraseCut's named subsets, against a slow transcription of the evaluator's rules, and what a reader makes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipseg.data.phrase_tasks import ReaderOptions
from clipseg.data.phrasecut import PhraseCut
from clipseg.data.sample import collate
from clipseg.data.subsets import SUBSETS, Vocabulary, from_bits, read_vocabulary, size_subset, subsets_of, to_bits
from clipseg.errors import ClipSegError

KINDS = ("color", "shape", "material", "texture", "state", "adj", "noun", "loc", "count", "bad")
WORDS = {"stuff_names": ["sky", "rug"], **{f"att_{kind}": [f"{kind} word"] for kind in KINDS}, "att_color": ["red", "blue"]}


def write_vocabulary(root: Path) -> None:
    """600 categories "c0", "c1" … and 300 attributes "a0", "a1" … by frequency, and the evaluator's file with few words."""
    counts = {kind: [[f"{kind[0]}{n}", 1000 - n] for n in range(many)] for kind, many in (("cat", 600), ("att", 300))}
    counts["cat"][3] = ["drugs", 997]
    counts["att"][5] = ["red", 995]
    (root / "name_att_rel_count.json").write_text(json.dumps(counts | {"rel": []}))
    lines = [f"{name} = {words!r}  # words" for name, words in WORDS.items()]
    (root / "subset.py").write_text("import nothing_there\n" + "\n".join(lines) + "\nraise SystemExit(1)\n")


def structure(name: str, attributes: tuple[str, ...] = (), relations: int = 0, type: str = "name") -> dict[str, Any]:
    related = [["on", "table"]] * relations
    return {"name": name, "attributes": list(attributes), "relation_descriptions": related, "type": type}


@pytest.mark.parametrize(
    ("given", "instances", "expected"),
    [
        (structure("c0"), 1, "c20 c100 c500 i_single p_name t_obj a200+"),
        (structure("c19", ("a19",), type="attribute"), 2, "c20 c100 c500 i_multi p_att p_att+ t_obj a20 a100 a200"),
        (structure("c20", ("a20", "zz")), 4, "c100 c500 c21-100 i_multi p_name p_att p_attm t_obj a100 a200 a21-100"),
        (structure("c100", ("a100",)), 5, "c500 c101-500 i_multi i_many p_name p_att t_obj a200 a101-200"),
        (structure("c500", ("a200",)), 1, "c500+ i_single p_name p_att t_obj a200+"),
        (structure("person"), 1, "c_coco c500+ i_single p_name t_obj a200+"),
        (structure("drugs", ("a250", "red")), 1, "c20 c100 c500 i_single p_name p_att p_attm t_stuff a20 a100 a200 a_color"),
        (structure("c1", (), 1, "relation"), 1, "c20 c100 c500 i_single p_rel p_rel+ t_obj a200+"),
        (
            structure("c1", ("a1",), 2, "verbose"),
            1,
            "c20 c100 c500 i_single p_att p_rel p_relm p_att_rel p_verbose t_obj a20 a100 a200",
        ),
        (
            structure("c1", ("count word", "bad word")),
            1,
            "c20 c100 c500 i_single p_name p_att p_attm t_obj a200+ a_count a_bad",
        ),
        (None, 1, "i_single"),
        ({"name": 3}, 0, ""),
        ({"name": "sky", "attributes": "red", "type": ["name"]}, 9, "c500+ i_multi i_many t_stuff a200+"),
    ],
)
def test_a_task_is_in_the_subsets_of_the_evaluator(tmp_path: Path, given: Any, instances: int, expected: str) -> None:
    write_vocabulary(tmp_path)
    found = subsets_of(given, instances, read_vocabulary(tmp_path))
    assert found == set(expected.split())
    assert from_bits(to_bits(found)) == tuple(name for name in SUBSETS if name in found)


def test_the_subsets_are_the_named_ones() -> None:
    assert len(SUBSETS) == len(set(SUBSETS)) == 40 < 64
    assert from_bits(to_bits(SUBSETS)) == SUBSETS
    assert [size_subset(share) for share in (0, 0.0199, 0.02, 0.2, 0.2001, 1)] == ["s_small", "s_small", "s_mid", "s_mid"] + [
        "s_large"
    ] * 2


def test_what_is_not_there_is_named_and_the_rest_is_told(tmp_path: Path) -> None:
    nothing = read_vocabulary(tmp_path)
    assert nothing == Vocabulary()
    missing = nothing.missing
    assert [len(names) for names in missing.values()] == [12, 12]
    assert "name_att_rel_count.json" in next(iter(missing))
    told = subsets_of(structure("sky", ("red",), type="attribute"), 1, nothing)
    assert told == {"i_single", "p_att", "p_att+"}
    write_vocabulary(tmp_path)
    assert read_vocabulary(tmp_path).missing == {}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("name_att_rel_count.json", '{"cat": [["a", 1]]}'),
        ("name_att_rel_count.json", '{"cat": [[1, 1]], "att": []}'),
        ("name_att_rel_count.json", '[["a", 1]]'),
        ("name_att_rel_count.json", '{"cat": [["a'),
        ("subset.py", "stuff_names = ["),
        ("subset.py", "stuff_names = ['sky']"),
        ("subset.py", "\0"),
        ("subset.py", "(" * 5000),
    ],
)
def test_a_damaged_vocabulary_is_one_line(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ClipSegError) as caught:
        read_vocabulary(tmp_path)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_reader_gives_each_task_its_subsets(phrasecut_root: Any) -> None:
    root = phrasecut_root(3)
    dataset = PhraseCut(root, split="test")
    assert len(dataset.missing_subsets) == 2
    write_vocabulary(root)
    dataset = PhraseCut(root, split="test")
    assert dataset.missing_subsets == {}
    batch = collate([dataset[item] for item in range(len(dataset))])
    assert len(batch.subsets) == len(batch)
    for subsets, mask in zip(batch.subsets, batch.masks, strict=True):
        share = float(mask.float().mean())
        size = "s_small" if share < 0.02 else "s_mid" if share <= 0.2 else "s_large"
        assert set(subsets) == {"c500+", "i_single", "p_name", "t_obj", "a200+", size}
    assert dataset.tasks.subsets.dtype == np.uint64
    training = PhraseCut(root, ReaderOptions(training=True), split="test")
    assert training.missing_subsets == {}
    assert all(task.subsets == () for task in training[0].tasks)
