"""Templates around phrases."""

import random

import numpy as np
import pytest

from clipseg.errors import ClipSegError
from clipseg.prompts.text import TEMPLATES, choose, fill, templates


def test_the_named_sets_are_the_papers():
    assert {name: len(found) for name, found in TEMPLATES.items()} == {
        "plain": 1,
        "fixed": 1,
        "shuffled": 4,
        "extended": 9,
        "imagenet": 80,
    }
    words = (
        "a photo of a|a photograph of a|an image of a||a cropped photo of a|a good photo of a|a photo of one|a bad photo of a"
    )
    nine = [f"{start} {{}}.".strip() for start in f"{words}|a photo of the".split("|")]
    assert TEMPLATES["extended"] == tuple(nine)
    assert (TEMPLATES["shuffled"], TEMPLATES["fixed"], TEMPLATES["plain"]) == (tuple(nine[:4]), tuple(nine[:1]), ("{}",))
    assert "itap of the {}." in TEMPLATES["imagenet"]
    for found in TEMPLATES.values():
        assert len(set(found)) == len(found)
        assert templates(found) == found


def test_a_phrase_goes_in_as_it_is():
    assert fill("{}", "a dog") == "a dog"
    assert fill("a photo of a {}.", "{} {0} %s \\1 $x") == "a photo of a {} {0} %s \\1 $x."
    assert fill("{x} {}", "dog") == "{x} dog"


def test_a_set_a_template_or_a_list():
    assert templates("fixed") == ("a photo of a {}.",)
    assert templates("my {}") == ("my {}",)
    assert templates(["a {}", "the {}"]) == ("a {}", "the {}")


@pytest.mark.parametrize("bad", ["fixd", "", [], ["a dog"], ["{} and {}"], ["{}", 3], "{} {}"])
def test_what_is_no_template_is_refused(bad):
    with pytest.raises(ClipSegError, match=r"template"):
        templates(bad)


def test_the_choice_is_a_function_of_the_seed():
    random.seed(0)
    np.random.seed(0)
    first = [choose(TEMPLATES["extended"], seed) for seed in range(300)]
    random.seed(1)
    np.random.seed(1)
    assert first == [choose(TEMPLATES["extended"], seed) for seed in range(300)]
    counts = {template: first.count(template) for template in TEMPLATES["extended"]}
    assert min(counts.values()) > 15
    assert choose(("{}",), 2**63) == "{}"
