"""Forms that mean the same, and controls that do not."""

import numpy as np
import pytest

from clipseg.data.class_words import class_words
from clipseg.studies.laboratory.forms import CONTROLS, FORMS, SYNSETS, control, plural, shuffled, synonym
from clipseg.studies.laboratory.statements import Statement

CAR = Statement(text="old red car near a bus", name="car", attributes=("old", "red"), relations=(("near", "bus"),))
SKY = Statement(text="sky", name="sky")


def form(name: str, statement: Statement) -> str | None:
    return FORMS[name](statement, np.random.default_rng(0))


def test_forms_by_hand() -> None:
    assert {name: form(name, CAR) for name in FORMS if name != "typing_error"} == {
        "article": "an old red car near a bus",
        "plural": "old red cars near a bus",
        "template": "a photo of an old red car near a bus.",
        "word_order": "the car that is old and red near a bus",
        "synonym": "old red automobile near a bus",
        "lower_case": "old red car near a bus",
        "upper_case": "OLD RED CAR NEAR A BUS",
        "full_stop": "old red car near a bus.",
    }
    assert form("word_order", Statement(text="cat on mat", name="cat", relations=(("on", "mat"),))) == "the cat that is on mat"
    assert (form("word_order", SKY), form("synonym", SKY), form("plural", SKY)) == (None, None, "skies")


def test_a_typing_error_exchanges_two_letters() -> None:
    statement = Statement(text="a red ladybird", name="ladybird")
    wrong = form("typing_error", statement)
    assert wrong is not None
    assert wrong.startswith("a red l")
    assert sorted(wrong) == sorted(statement.text)
    assert sum(one != two for one, two in zip(wrong, statement.text, strict=True)) == 2
    assert form("typing_error", Statement(text="ox", name="ox")) is None


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("bus", None),
        ("box", "boxes"),
        ("cherry", "cherries"),
        ("boy", "boys"),
        ("old man", "old men"),
        ("glass", "glasses"),
        ("sheep", None),
        ("dogs", None),
    ],
)
def test_plurals(one: str, many: str | None) -> None:
    assert plural(one) == many


def test_synonyms_are_of_the_words_at_hand() -> None:
    for nouns in SYNSETS:
        names = ("aeroplane", "bicycle", "bus", "car", "sofa", "motorbike", "potted plant", "tv monitor")
        home = next(name for name in names if nouns[0] in class_words(name) or nouns[0] == name)
        assert set(nouns) <= class_words(home) | {"tv"}
        assert synonym(nouns[0]) == nouns[1]
        assert synonym(nouns[1]) == nouns[0]


def test_controls_mean_something_else() -> None:
    rng = np.random.default_rng(0)
    assert sorted(shuffled(CAR.text, rng).split()) == sorted(CAR.text.split())
    assert shuffled(CAR.text, rng) != CAR.text
    assert (shuffled("sky", rng), shuffled("red red", rng)) == ("sky", "red red")
    others = {name: control(name, CAR.text, (CAR, SKY), rng) for name in CONTROLS}
    assert (others["empty"], others["random"]) == ("", "sky")
