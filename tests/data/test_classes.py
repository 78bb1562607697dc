"""Folds and unseen sets are the paper's; a phrase is removed for a held-out class's words in any number, and for no other's."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipseg.__main__ import main
from clipseg.data.annotations import PackedStrings
from clipseg.data.class_words import RULES, class_words, excluded_words, mentions, phrase_filter
from clipseg.data.classes import (
    COCO_CLASSES,
    LVIS_PROMPTS,
    PASCAL_CLASSES,
    PERSON_WORDS,
    UNSEEN_SETS,
    coco20i_fold,
    pascal5i_fold,
    unseen_classes,
)
from clipseg.data.lemmas import Lemmatiser, words_of
from clipseg.errors import ClipSegError


def test_pascal_folds_are_five_labels_each():
    assert len(PASCAL_CLASSES) == 20
    assert pascal5i_fold(0) == ("aeroplane", "bicycle", "bird", "boat", "bottle")
    assert pascal5i_fold(3) == ("potted plant", "sheep", "sofa", "train", "tv monitor")
    assert sum((pascal5i_fold(fold) for fold in range(4)), ()) == PASCAL_CLASSES


def test_coco_folds_go_by_index_modulo_four():
    assert len(set(COCO_CLASSES)) == 80
    assert coco20i_fold(0)[:3] == ("person", "airplane", "boat")
    assert coco20i_fold(3)[-1] == "toothbrush"
    folds = [coco20i_fold(fold) for fold in range(4)]
    assert [len(fold) for fold in folds] == [20] * 4
    assert set().union(*folds) == set(COCO_CLASSES)


def test_unseen_sets_grow_by_two():
    assert unseen_classes(2) == ("cow", "motorbike")
    assert set(unseen_classes(10)) - set(unseen_classes(8)) == {"chair", "potted plant"}
    for count, names in UNSEEN_SETS.items():
        assert len(set(names)) == count
        assert set(names) <= set(PASCAL_CLASSES)
        assert UNSEEN_SETS.get(count - 2, ()) == names[:-2]


def test_lvis_prompts_name_categories_as_lvis_does():
    assert {kind: len(prompts) for kind, prompts in LVIS_PROMPTS.items()} == {"affordances": 3, "attributes": 3, "meronymy": 2}
    assert LVIS_PROMPTS["attributes"]["can be driven"][1:3] == ("bus_(vehicle)", "cab_(taxi)")
    assert set(LVIS_PROMPTS["affordances"]["sit on"]) < set(LVIS_PROMPTS["meronymy"]["has legs"])
    assert sum(len(names) for prompts in LVIS_PROMPTS.values() for names in prompts.values()) == 86


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_fold_out_of_range_is_an_error(wrong):
    for fold_of in (pascal5i_fold, coco20i_fold):
        with pytest.raises(ClipSegError, match=f"fold {wrong} .* expected one of 0, 1, 2, 3"):
            fold_of(wrong)


def test_unknown_names_are_errors_that_list_the_known():
    with pytest.raises(ClipSegError, match="expected one of 2, 4, 6, 8, 10"):
        unseen_classes(3)
    with pytest.raises(ClipSegError, match=r"class 'tiger cub' unknown; expected one of aeroplane, .*tv monitor"):
        class_words("tiger cub")
    for rule_of in (excluded_words, phrase_filter):
        with pytest.raises(ClipSegError, match=r"rule 'unseen3' unknown; expected one of unseen2, .*affordances"):
            rule_of("unseen3")


@pytest.mark.parametrize(
    ("phrase", "name", "word"),
    [
        ("a black cat", "cat", "cat"),
        ("Two CATS", "cat", "cat"),
        ("sleeping tabbies", "cat", "tabby"),
        ("the cat's tail", "cat", "cat"),
        ("tv monitors", "tv monitor", "tv"),
        ("potted plants", "potted plant", "potted plant"),
        ("pot-plant", "potted plant", "pot plant"),
        ("dining tables", "dining table", "dining table"),
        ("motor cars", "car", "car"),
        ("red buses", "bus", "bus"),
        ("three geese", "bird", "goose"),
        ("oxen", "cow", "oxen"),
        ("holstein", "cow", "holstein"),
        ("men sitting", "person", "man"),
        ("women", "person", "woman"),
        ("small children", "person", "child"),
        ("love seats", "sofa", "love seat"),
        ("aircraft carriers at sea", "boat", "aircraft carrier"),
        ("two-seaters", "car", "two seater"),  # "seater" alone is no noun
    ],
)
def test_words_of_a_class_are_found(phrase, name, word):
    assert mentions(phrase, class_words(name)) == word


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("catalog on the shelf", "cat"),
        ("scattered leaves", "cat"),
        ("a pot planter", "potted plant"),
        ("pot of plants", "potted plant"),
        ("plant pot", "potted plant"),
        ("carpet", "car"),
        ("scarf", "car"),
        ("business", "bus"),
        ("training", "train"),
        ("seat for lovers", "sofa"),
        ("people", "person"),  # not among the authors' words
        ("", "cat"),
        ("'s ... !", "cat"),
    ],
)
def test_words_inside_words_are_not(phrase, name):
    assert mentions(phrase, class_words(name)) is None


def test_every_word_of_a_class_is_found_by_itself_and_in_the_plural():
    for name in PASCAL_CLASSES:
        words = class_words(name)
        assert mentions(name, words) is not None
        missed = {word for word in words if mentions(f"big {word} here", words) is None}
        assert not missed
        regular = {word for word in words if word[-1] in "bdgklnprt"}
        missed = {word for word in regular if mentions(f"{word}s", words) is None}
        assert not missed


def test_rules_forbid_the_words_of_their_classes():
    assert excluded_words("unseen2") == class_words("cow") | class_words("motorbike")
    assert excluded_words("pascal5i_fold2") > class_words("person")
    assert class_words("person") == frozenset(PERSON_WORDS)
    assert excluded_words("unseen2") < excluded_words("unseen4") < excluded_words("unseen6") < excluded_words("unseen10")


@pytest.mark.parametrize(
    "phrase", ["drinking glass", "man riding", "bird that flies", "wheels", "left ear", "driven", "table leg"]
)
def test_affordances_go_by_exact_words(phrase):
    assert phrase_filter("affordances")([phrase]).tolist() == [True]


@pytest.mark.parametrize(
    "phrase",
    ["driver", "wheelchair", "bear", "sea", "man sat", "birds that flew", "drive-in", "Wheel", "leg's end", "ridden horse"],
)
def test_other_words_than_affordances_stay(phrase):
    assert phrase_filter("affordances")([phrase]).tolist() == [False]


def test_a_filter_marks_the_phrases_that_must_go():
    phrases = ["red cow", "blue sky", "red cow", "", "cows", "motorbikes parked"]
    found = phrase_filter("unseen2")(PackedStrings(phrases))
    assert found.dtype == np.bool_
    assert found.tolist() == [True, False, True, False, True, True]
    assert phrase_filter("unseen2")([]).shape == (0,)


@given(st.text())
def test_any_text_is_judged(text):
    for rule in ("unseen10", "affordances"):
        mentions(text, excluded_words(rule))
    assert all(word == word.lower() and word.isalnum() for word in words_of(text) if word.isascii())


def test_the_lemma_is_the_shortest_noun_and_a_singular_before_a_plural():
    lemmatise = Lemmatiser(frozenset({"bus", "men", "man", "glass", "glasses", "fly", "goose", "gas"}), {"geese": ["goose"]})
    words = ["buses", "men", "glasses", "flies", "geese", "gas", "unknowns", "boxes"]
    assert [lemmatise(word) for word in words] == ["bus", "man", "glass", "fly", "goose", "gas", "unknowns", "boxes"]


def test_data_words_counts_what_each_rule_removes(phrasecut_root, capsys):
    root = phrasecut_root(1, splits=("train",))
    tasks = json.loads((root / "refer_train.json").read_text())
    for task, phrase in zip(tasks, ["two cows", "wheel of a car", "two cows"], strict=True):
        task["phrase"] = phrase
    (root / "refer_train.json").write_text(json.dumps(tasks))
    assert main(["data", "words", str(root)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.endswith("train: 3 phrases")
    assert [line.split()[0] for line in lines] == list(RULES)
    table = {line.split()[0]: line for line in lines}
    assert table["unseen2"].split()[1:3] == ["2", "66.7%"]
    assert table["unseen2"].endswith("'two cows' (cows)")
    assert table["pascal5i_fold1"].endswith("'two cows' (cows), 'wheel of a car' (car)")
    assert table["affordances"].endswith("'wheel of a car' (wheel)")
    assert main(["data", "words", str(root), "--split", "tets"]) == 2
    assert "split 'tets' unknown" in capsys.readouterr().err
