"""Results that are stored beside the examples: whole, small, shown without computing anything, and made again by a
command."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from fakes import failing, fake_callables

from emitdiff.errors import EmitDiffError
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan
from emitdiff.ui.examples import FOLDER, read_examples
from emitdiff.ui.form import fill_form
from emitdiff.ui.synthesis.stored import STORED, read_picture, read_stored, write_stored
from emitdiff.ui.synthesis.tab import SynthesisTab

BROWSER = SimpleNamespace(session_hash="someone")


@pytest.fixture(scope="module")
def tab():
    """With callables that fail where a click on an example would run a network."""
    with gr.Blocks():
        return SynthesisTab(fake_callables(synthesize=failing, control_image=failing, quality=failing), read_examples())


def click(tab, index, checkpoint="emitdiff-mini", previous=None):
    event = SimpleNamespace(index=index)
    return tab.input.take_example(checkpoint, event), tab.show_stored(checkpoint, previous, None, event, BROWSER)


@pytest.mark.parametrize("card", read_examples(), ids=lambda card: card.image.stem)
def test_every_example_has_four_images_its_edges_and_settings(card):
    real, mask = read_scan(card.image).image(0), read_mask(card.mask)
    stored = read_stored(card, mask)
    assert [image.seed for image in stored.images] == [0, 1, 2, 3]
    for image, scores in zip(stored.images, stored.scores, strict=True):
        assert image.image.shape == real.shape and image.image.std() > 5 and image.mask is mask
        assert image.settings["prompt"].startswith(card.modality) and 0 < scores["edge_f1"] <= 1
    assert stored.control.shape == real.shape and stored.control[mask > 0, 2].mean() > 200  # the inside, in blue


def test_they_are_small():
    assert sum(file.stat().st_size for file in STORED.iterdir()) < 400_000
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 1_000_000


def test_a_click_shows_everything_and_computes_nothing(tab):
    started = time.process_time()
    form, results = click(tab, 0)
    assert time.process_time() - started < 0.5, "seconds of one processor; the page has one second in all"
    assert form[tab.input.source.scan].name == "painted_chest_xray.png"
    assert form[tab.input.preview.source_view].shape == (768, 768, 3)
    assert form[tab.input.preview.control_view].any()
    run = results[tab.results.run]
    tiles = results[tab.results.gallery]
    assert len(tiles) == 4 and tiles[2][1].startswith("seed 2, edges 0.")
    assert "Precomputed results" in results[tab.results.progress]
    assert all(made.path.is_file() for made in run.images)
    _, other = click(tab, 1, previous=run)
    assert not run.folder.exists(), "what is no longer shown leaves nothing behind"
    other[tab.results.run].remove()


def test_the_form_shows_what_the_stored_images_were_made_with(tab):
    form, results = click(tab, 4)
    run = results[tab.results.run]
    shown = fill_form(run.request)
    for name, field in tab.form.items():
        assert form[field] == shown[name], name
    assert form[tab.input.words.modality] == "Ultrasound"
    run.remove()


def test_other_weights_have_nothing_stored(tab):
    form, results = click(tab, 0, "sd15-canny")
    assert tab.form["checkpoint"] not in form and set(results) == {tab.results.progress}


def test_a_run_is_not_disturbed(tab):
    tab.generation.cancellation.begin(BROWSER)
    _, results = click(tab, 0)
    assert set(results) == {tab.results.progress}
    tab.generation.cancellation.end(BROWSER)


def test_they_can_be_made_again(tmp_path):
    cards = read_examples()[:1]
    write_stored(fake_callables(), cards, tmp_path)
    mask = read_mask(cards[0].mask)
    stored = read_stored(cards[0], mask, tmp_path)
    assert len(stored.images) == 4 and stored.request.settings.prompt == "X-ray, chest, normal"
    assert np.abs(stored.images[0].image.astype(int) - read_scan(cards[0].image).image(0)).mean() < 20
    assert read_stored(read_examples()[1], None, tmp_path) is None
    with pytest.raises(EmitDiffError, match="makes it again"):
        read_picture(tmp_path / "gone.webp")


@pytest.mark.slow
def test_the_embedded_weights_still_make_them():
    """Fails after the weights were trained again: then `python docs/stored_examples.py`."""
    from emitdiff.backend.services import build_callables

    card, calls = read_examples()[0], build_callables("emitdiff-mini", "textdiff-mini")
    image, mask = read_scan(card.image).image(0), read_mask(card.mask)
    stored = read_stored(card, mask)
    one = replace(stored.request, settings=stored.request.settings.replace(num_images=1))
    made = [*calls.synthesize(image, mask, one, lambda: False)][-1]
    assert np.abs(made.image.astype(int) - stored.images[0].image).mean() < 4
