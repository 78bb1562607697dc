"""WordNet's files in miniature, in their own format, become the words of the classes; the shipped file is theirs."""

import json
from pathlib import Path

import pytest

from clipseg.data.class_words import ASSET
from clipseg.data.classes import PASCAL_SYNSETS
from clipseg.errors import ClipSegError
from clipseg.tools import class_words as wordnet

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
# offset -> lemmas, (pointer symbol, offset) …
SYNSETS = {
    "00000001": (["animal"], [("~", "00000002")]),
    "00000002": (["cat", "true_cat"], [("@", "00000001"), ("~", "00000003"), ("~i", "00000005"), ("~", "00000004")]),
    "00000003": (["tabby", "Tabby_cat"], [("@", "00000002"), ("~", "00000004")]),
    "00000004": (["St._Bernard's_cat", "tom-cat", "puss"], [("@", "00000002")]),
    "00000005": (["Garfield"], [("@i", "00000002")]),
    "00000006": (["cat", "guy"], []),
    "00000007": (["pus"], []),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    senses: dict[str, list[str]] = {}
    data = LICENCE
    for offset, (lemmas, pointers) in SYNSETS.items():
        words = " ".join(f"{lemma} 0" for lemma in lemmas)
        links = " ".join(f"{symbol} {target} n 0000" for symbol, target in pointers)
        data += f"{offset} 05 n {len(lemmas):02x} {words} {len(pointers):03d} {links}".rstrip() + " | a gloss | with a bar  \n"
        for lemma in lemmas:
            senses.setdefault(lemma.lower(), []).append(offset)
    index = LICENCE
    for lemma, offsets in sorted(senses.items()):
        index += f"{lemma} n {len(offsets)} 2 @ ~ {len(offsets)} 1 {' '.join(offsets)}  \n"
    (tmp_path / "data.noun").write_text(data)
    (tmp_path / "index.noun").write_text(index)
    (tmp_path / "noun.exc").write_text("guys guy\ntabbyen tabby\n")
    return tmp_path


def test_hyponyms_are_followed_and_instances_are_not(folder: Path) -> None:
    nouns = wordnet.read_nouns(folder)
    found = wordnet.lemmas_below(nouns, "cat.n.01")
    assert found == {"cat", "true cat", "tabby", "tabby cat", "st bernard cat", "tom cat", "puss"}
    assert wordnet.lemmas_below(nouns, "cat.n.02") == {"cat", "guy"}
    assert "cat" in wordnet.lemmas_below(nouns, "animal.n.01")


def test_unknown_synsets_and_missing_files_are_errors(folder: Path) -> None:
    nouns = wordnet.read_nouns(folder)
    for name in ("dog.n.01", "cat.n.03", "cat.n.00"):
        with pytest.raises(ClipSegError, match=f"synset {name}"):
            wordnet.lemmas_below(nouns, name)
    (folder / "noun.exc").unlink()
    with pytest.raises(ClipSegError, match=r"noun\.exc: No such file .*apt-get install wordnet-base"):
        wordnet.read_nouns(folder)


def test_the_file_is_made_the_same_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(wordnet, "PASCAL_SYNSETS", {"house cat": "cat.n.01", "person": "person.n.01"})
    outs = [folder / "one.json", folder / "two.json"]
    for out in outs:
        wordnet.main([str(folder), str(out)])
    assert outs[0].read_bytes() == outs[1].read_bytes()
    content = json.loads(outs[0].read_text())
    assert "house cat" in content["classes"]["house cat"]
    assert "toddler" in content["classes"]["person"]
    assert content["exceptions"] == {"tabbyen": ["tabby"]}
    # "pus" is in no class, but decides what "puss" is a form of; "animal" decides nothing.
    assert {"cat", "puss", "pus"} <= set(content["nouns"])
    assert "animal" not in content["nouns"]
    assert "one.json: " in capsys.readouterr().out


def test_the_shipped_file_is_compact_and_licensed() -> None:
    content = json.loads(ASSET.read_text(encoding="utf-8"))
    assert list(content["classes"]) == list(PASCAL_SYNSETS)
    assert ASSET.stat().st_size < 100_000
    assert {"jumbo jet", "airliner", "seaplane"} <= set(content["classes"]["aeroplane"])
    assert len(content["classes"]["bird"]) == 1733
    assert all(words == sorted(set(words)) for words in content["classes"].values())
    licence = ASSET.with_name("pascal_class_words.LICENSE").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in licence


@pytest.mark.skipif(not Path("/usr/share/wordnet/data.noun").exists(), reason="needs Debian's wordnet-base")
def test_the_shipped_file_is_what_wordnet_gives(tmp_path: Path) -> None:
    wordnet.main(["/usr/share/wordnet", str(tmp_path / "words.json")])
    assert (tmp_path / "words.json").read_bytes() == ASSET.read_bytes()
