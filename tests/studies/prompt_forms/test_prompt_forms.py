"""Forms of the prompt: compared on known differences, and measured as each would be on its own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import made_results

import evaluate
from clipseg.errors import ClipSegError
from clipseg.measure.results import Results
from clipseg.measure.significance import Interval, TTest
from clipseg.prompts.text import TEMPLATES
from clipseg.run.conditioning import Conditioner
from clipseg.studies.prompt_forms.numbers import BARE, compare_forms, format_forms, write_forms_report
from clipseg.studies.prompt_forms.run import FORMS, PromptForms


def test_a_better_form_is_found_better_and_the_same_is_not() -> None:
    forms = {BARE: made_results(quality=0.4), "same": made_results(quality=0.4), "good": made_results(quality=0.5)}
    comparison = compare_forms(forms, provenance={})
    bare, same, good = comparison.effects
    assert (bare.difference, bare.p_holm, same.p_holm) == (0, None, None)
    assert bare.mean == pytest.approx(100 * forms[BARE].metrics()["miou"])
    assert isinstance(good.test, TTest)
    assert good.p_holm is not None
    assert good.p_holm < 1e-6
    assert isinstance(good.difference_interval, Interval)
    assert good.difference_interval.low > 0
    figures = comparison.metrics()
    assert figures["form/good/miou"] == forms["good"].metrics()["miou"]
    assert figures["form/good/difference_points"] == pytest.approx(good.mean - bare.mean)
    assert "form/same/p_holm" not in figures
    text = format_forms(comparison)
    assert text.splitlines()[4].split()[0] == "good"
    assert "no spread" in text or "not testable" in text
    with pytest.raises(ClipSegError, match="keys are missing"):
        compare_forms({BARE: made_results(), "other": made_results(images=5)}, provenance={})


def test_the_page_shows_every_form_and_escapes_templates(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> {} $x$"
    forms = {
        BARE: made_results(),
        "$evil <b>$": replace(
            made_results(quality=0.5), provenance={"protocol": "released", "templates": [evil], "form": "evil"}
        ),
    }
    html = write_forms_report(tmp_path, compare_forms(forms, provenance={})).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; {} $x$" in html
    assert "<b>" not in html
    assert html.count("$evil &lt;b&gt;$") == 3
    assert "<svg" in html


def test_forms_are_the_bare_phrase_each_template_and_the_means() -> None:
    assert next(iter(FORMS)) == BARE
    assert len(FORMS) == 1 + len(TEMPLATES["extended"]) + 3
    assert FORMS["a_photo_of_a"].templates == "a photo of a {}."
    assert FORMS["full_stop"].templates == "{}."
    assert [name for name, form in FORMS.items() if form.ensemble] == [
        "mean_of_shuffled",
        "mean_of_extended",
        "mean_of_imagenet",
    ]


def test_side_by_side_gives_what_each_form_gives_on_its_own(tiny_evaluation) -> None:
    evaluation = replace(tiny_evaluation, condition=Conditioner(FORMS[BARE]), provenance={"benchmark": "prompt_forms"})
    chosen = {name: FORMS[name] for name in (BARE, "a_photo_of_a", "mean_of_shuffled")}
    forms = PromptForms(evaluation=evaluation, forms=chosen).run()
    assert list(forms) == list(chosen)
    for name, settings in chosen.items():
        alone = replace(evaluation, condition=Conditioner(settings)).run()
        assert all(np.array_equal(*pair) for pair in zip(forms[name].counts.columns, alone.counts.columns, strict=True))
        assert forms[name].provenance["form"] == name
    assert forms["mean_of_shuffled"].provenance["mean_embedding"] is True
    assert len(forms["mean_of_shuffled"].provenance["templates"]) == 4
    bare, other = (forms[name].counts.fp for name in (BARE, "mean_of_shuffled"))
    assert not np.array_equal(bare, other)


def test_the_benchmark_writes_a_folder_a_form(call, phrasecut_root) -> None:
    root = phrasecut_root(1, splits=("test",))
    command = ["checkpoint=mini", "benchmark=prompt_forms", f"data.root={root}", "data.workers=0", "out=out"]
    status, out, err = call(evaluate, *command)
    assert (status, err) == (0, "")
    assert "mean_of_imagenet" in out
    for name in FORMS:
        assert Results.load(Path("out", name)).provenance["form"] == name
    assert json.loads(Path("out/metrics.json").read_text())["form/bare/miou"] >= 0
    assert "mean_of_imagenet" in Path("out/report.html").read_text()
    for refused in ("prompt.templates=fixed", "prompt.ensemble=true", "intensity_tests=true", "save_predictions=masks"):
        status, _, err = call(evaluate, *command, refused)
        assert (status, err.count("\n")) == (2, 1)
        assert "prompt_forms" in err
