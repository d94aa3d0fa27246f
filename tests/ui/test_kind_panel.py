"""The kind of an image beside it, and what it does to the prompt; handlers called as Gradio calls them."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from fakes import failing, fake_callables, scan_that_saves

from emitdiff.ui.examples import read_examples
from emitdiff.ui.synthesis.input_panel import SynthesisInput

SEEN = {"like": ("breast ultrasound", "Ultrasound", "breast"), "unlike": None}


def build(seen):
    with gr.Blocks():
        form = SynthesisInput(fake_callables(image_kind=seen), read_examples())
        form.lay_out_controls()
        form.lay_out_views()
        form.connect()
        return form


@pytest.fixture(scope="module")
def form():
    return build(lambda image: SEEN["like" if image.any() else "unlike"])


@pytest.fixture
def scan(example):
    return scan_that_saves(example.image)


@pytest.fixture
def blank(tmp_path):
    from emitdiff.files import write_png

    return scan_that_saves(write_png(tmp_path / "black.png", np.zeros((64, 64), np.uint8)))


def given(form, scan, prompt, written=""):
    guess = form.kind.look(scan, 1, None)
    updates = form.kind.apply(form.words, scan, guess, prompt, written)
    return updates, updates[form.kind.said], updates[form.kind.use]


def test_a_prompt_that_nobody_wrote_is_set_to_the_image(form, scan):
    updates, said, use = given(form, scan, " ")
    assert updates[form.words.prompt] == updates[form.kind.written] == "Ultrasound, breast"
    assert (updates[form.words.modality], updates[form.words.organ]) == ("Ultrasound", "breast")
    assert "looks like a breast ultrasound" in said and "was set" in said and not use.visible
    updates, *_ = given(form, scan, "MRI, heart", written="MRI, heart")
    assert updates[form.words.prompt] == "Ultrasound, breast", "set for the image before, not written by anyone"


def test_words_that_have_not_reached_the_prompt_yet_are_kept(form, scan):
    guess = form.kind.look(scan, 1, None)
    updates = form.kind.apply(form.words, scan, guess, "", "", modality=None, free_text="portable")
    assert form.words.free_text not in updates and form.words.prompt not in updates
    updates = form.kind.apply(
        form.words, scan, guess, "MRI, heart", "MRI, heart", modality="MRI", organ="heart", free_text=""
    )
    assert updates[form.words.prompt] == "Ultrasound, breast", "the words of the image before are nobody's own"


def test_a_prompt_that_contradicts_the_image_is_kept_and_answered(form, scan):
    updates, said, use = given(form, scan, "MRI, prostate, prostate, high contrast", written="MRI, heart")
    assert form.words.prompt not in updates and form.words.modality not in updates
    assert "looks like a breast ultrasound; the prompt says MRI, prostate." in said and "warning" in said
    assert use.visible and use.value == "Use “Ultrasound, breast, high contrast”"
    right = form.kind.correct(form.words, form.kind.look(scan, 1, None), "MRI, prostate, prostate, high contrast")
    assert right[form.words.prompt] == "Ultrasound, breast, high contrast"
    assert (right[form.words.organ], right[form.words.appearance]) == ("breast", "high contrast")


def test_the_sentence_goes_once_the_prompt_fits(form, scan):
    guess = form.kind.look(scan, 1, None)
    updates = form.kind.describe(scan, guess, "Ultrasound, breast, dark", "")
    assert "looks like" in updates[form.kind.said] and "warning" not in updates[form.kind.said]
    assert not updates[form.kind.use].visible


def test_an_image_like_none_that_is_known_changes_nothing(form, blank):
    updates, said, use = given(form, blank, "")
    assert "not recognised: choose" in said and set(updates) == {form.kind.said, form.kind.use} and not use.visible
    assert given(form, blank, "my own words")[1] == ""
    updates, said, _ = given(form, blank, "Ultrasound, breast", written="Ultrasound, breast")
    assert "still says “Ultrasound, breast”" in said and "warning" in said and form.words.prompt not in updates


def test_a_guess_about_another_image_does_not_count(form, scan, example):
    guess = form.kind.look(scan, 1, None)
    other = scan_that_saves(example.image)
    assert form.kind.apply(form.words, other, guess, "MRI, prostate", "")[form.kind.said] == ""
    assert form.words.prompt not in form.kind.apply(form.words, other, guess, "", "")


def test_the_file_wins_over_the_guess(form, scan):
    scan.modality = "MRI"
    updates, said, _ = given(form, scan, "")
    assert updates[form.words.prompt] == "MRI" and "The file says MRI." in said
    assert "The file says MRI; the prompt says Ultrasound" in given(form, scan, "Ultrasound, prostate")[1]
    scan.modality = "PT"
    assert form.words.prompt not in given(form, scan, "")[0]


def test_an_example_is_of_its_card(form):
    updates = form.take_example("sd15-canny", SimpleNamespace(index=3))
    shown, guess, said = updates[form.source.scan], updates[form.kind.guess], updates[form.kind.said]
    assert said == "" and not form.kind.describe(shown, guess, updates[form.words.prompt], "")[form.kind.said]
    assert (
        "The example is Prostate MRI; the prompt says CT" in form.kind.describe(shown, guess, "CT", "")[form.kind.said]
    )


def test_another_image_and_none_forget_the_last(form, scan, example):
    for updates in (form.take_file(str(example.image)), form.take_away(scan, 1, None, None)):
        assert updates[form.kind.guess] is None and updates[form.kind.said] == "" and not updates[form.kind.use].visible


def test_without_weights_nothing_is_guessed_and_nothing_breaks(scan):
    form = build(failing)
    updates, said, _ = given(form, scan, "")
    assert form.words.prompt not in updates and "not recognised" in said
