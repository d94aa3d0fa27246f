"""Both tabs as a user goes through them, in headless Chromium, on app.py and the embedded weights."""

from __future__ import annotations

import json
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError
from page_steps import PATIENCE, choose_example, few_steps, open_tab, said, set_number
from PIL import Image
from playwright.sync_api import expect

from emitdiff.provenance import read_synthetic_settings
from emitdiff.ui.examples import read_examples

MODELS = {"synthesis": "emitdiff-mini", "segmentation": "textdiff-mini"}


def test_the_page_says_what_it_is(page):
    header = page.locator(".status header")
    expect(header).to_contain_text("Research use only. Not a medical device.")
    for name in MODELS.values():
        expect(header).to_contain_text(f"{name} ready (embedded)")
    expect(header).to_contain_text(re.compile("CPU|GPU|NVIDIA"), timeout=PATIENCE)
    page.get_by_text("Synthesis emitdiff-mini").click()
    expect(page.get_by_role("cell", name="ready (embedded)").first).to_be_visible()


def test_an_example_becomes_labelled_synthetic_images(page, tmp_path):
    choose_example(page, "Chest X-ray")
    expect(page.get_by_label("Prompt (editable)")).to_have_value(re.compile("X-ray, chest"))
    expect(page.locator(".view", has_text="Control image").locator("img")).to_be_visible(timeout=PATIENCE)
    few_steps(page, images=2)
    page.get_by_label("First seed").fill("11")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(said(page)).to_contain_text("2 synthetic images", timeout=PATIENCE)
    expect(page.locator(".painted .thumbnail-item")).to_have_count(2)
    page.locator(".painted .thumbnail-item").nth(1).click()
    expect(page.get_by_text("seed 12, generated in")).to_be_visible()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_label("First seed")).to_have_value("12")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download ZIP").click()
    check_archive(download.value, tmp_path)


def check_archive(download, folder: Path):
    download.save_as(folder / "synthetic.zip")
    with zipfile.ZipFile(folder / "synthetic.zip") as archive:
        archive.extractall(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [entry["seed"] for entry in manifest["images"]] == [11, 12]
    for entry in manifest["images"]:
        image, mask = np.asarray(Image.open(folder / entry["file"])), np.asarray(Image.open(folder / entry["mask"]))
        assert image.shape == (256, 256, 3) and image.std() > 5
        assert mask.shape == (256, 256) and set(np.unique(mask)) == {0, 1}
        assert read_synthetic_settings(folder / entry["file"])["seed"] == entry["seed"]


def test_a_mask_is_drawn(page):
    choose_example(page, "Cardiac MRI")
    expect(page.locator(".view", has_text="Control image").locator("img")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Draw the mask").click()
    canvas = page.locator(".canvas canvas").first
    expect(canvas).to_be_visible()
    page.wait_for_timeout(3000)  # the slice comes onto the canvas, which is built again for it
    expect(canvas).to_be_visible()
    box = canvas.bounding_box()
    across, down = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(across - 40, down)
    page.mouse.down()
    page.mouse.move(across + 40, down, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    field = page.locator(".drop", has_text="Mask (optional): becomes")
    before = field.inner_text()
    page.get_by_role("button", name="Use the drawing as mask").click()
    expect(field).to_contain_text("png")
    expect(field).not_to_have_text(before, use_inner_text=True)


def test_structure_a_moved_mask_and_the_merging_mask(page, tmp_path):
    choose_example(page, "Cardiac MRI")
    control = page.locator(".view", has_text="Control image").locator("img")
    expect(control).to_be_visible(timeout=PATIENCE)
    before = control.get_attribute("src")
    page.get_by_role("button", name="Edit the mask").click()
    set_number(page, "Move right (of the width)", 0.15)
    set_number(page, "Structure", 0.6)
    page.wait_for_timeout(2000)
    assert control.get_attribute("src") != before
    few_steps(page, images=1, steps=2)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(said(page)).to_contain_text("1 synthetic image", timeout=PATIENCE)
    page.get_by_role("button", name="Merging mask").click()
    expect(page.locator(".merging .view img")).to_be_visible()
    expect(page.get_by_text("% real. The outline shows the label.")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download ZIP").click()
    download.value.save_as(tmp_path / "synthetic.zip")
    with zipfile.ZipFile(tmp_path / "synthetic.zip") as archive:
        archive.extractall(tmp_path)
    (entry,) = json.loads((tmp_path / "manifest.json").read_text())["images"]
    assert entry["settings"]["structure"] == 0.6 and entry["settings"]["edit"]["move_x"] == 0.15
    given = np.asarray(Image.open(next(card for card in read_examples() if card.title == "Cardiac MRI").mask)) > 0
    label = np.asarray(Image.open(tmp_path / entry["mask"])) > 0
    assert np.nonzero(label)[1].mean() - np.nonzero(given)[1].mean() == pytest.approx(0.15 * given.shape[1], abs=1)


def test_words_alone_are_enough(page):
    set_number(page, "Structure", 0)
    page.get_by_label("Prompt (editable)").fill("CT, abdomen, liver")
    few_steps(page, images=1, steps=2)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(said(page)).to_contain_text("1 synthetic image", timeout=PATIENCE)


def test_stop_stops_and_keeps_what_is_finished(page):
    choose_example(page, "Nuclei")
    few_steps(page, images=8, steps=100)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(said(page)).to_contain_text(re.compile(r"step \d+ of 100"), timeout=PATIENCE)
    page.get_by_role("button", name="Stop").click()
    started = time.monotonic()
    expect(said(page)).to_contain_text("Stopped", timeout=60_000)
    assert time.monotonic() - started < 10
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()


def test_a_page_reloaded_while_it_generates_comes_back_to_the_run(page):
    choose_example(page, "Chest X-ray")
    few_steps(page, images=2, steps=40)
    page.get_by_role("button", name="Generate", exact=True).click()
    going_on = re.compile(r"step \d+ of 40, .* a second, about .* left|step \d+ of 40, .* s a step, about .* left")
    expect(said(page)).to_contain_text(going_on, timeout=PATIENCE)
    page.reload()
    expect(said(page)).to_contain_text(going_on, timeout=PATIENCE)
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_disabled()
    expect(page.locator(".view", has_text="Image").first.locator("img")).to_be_visible()
    expect(page.locator(".drop", has_text="Mask (optional): becomes")).to_contain_text("painted_chest_xray_mask")
    expect(said(page)).to_contain_text("2 synthetic images in", timeout=PATIENCE)
    expect(page.locator(".painted img")).to_have_count(2)
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_enabled()
    page.reload()
    expect(said(page)).to_contain_text("2 synthetic images in")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


def test_an_own_file_and_a_bad_one(page, tmp_path):
    grey = np.random.default_rng(0).integers(0, 4096, (120, 200)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "own.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 20)
    chooser = page.locator(".drop input[type=file]").first
    chooser.set_input_files(tmp_path / "own.png")
    expect(page.get_by_text("own.png: 200 x 120")).to_be_visible()
    page.get_by_label("Additional words").fill("portable")
    page.get_by_role("button", name="Remove").or_(page.get_by_label("Clear")).first.click()
    page.locator(".drop input[type=file]").first.set_input_files(tmp_path / "broken.png")
    expect(page.get_by_role("alert").filter(has_text="broken.png")).to_be_visible()
    expect(page.get_by_label("Additional words")).to_have_value("portable")
    expect(page.get_by_text("Traceback")).to_have_count(0)


def test_nothing_chosen_is_said_in_a_sentence(page):
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(said(page)).to_contain_text("No image yet")
    open_tab(page, "Segmentation")
    page.get_by_role("button", name="Find").click()
    expect(said(page)).to_contain_text("No image yet")


def test_the_words_make_the_prompt(page):
    for label, word in (("Modality", "CT"), ("Organ", "abdomen"), ("Appearance", "high contrast")):
        page.get_by_label(label, exact=True).click()
        page.get_by_role("option", name=word, exact=True).click()
    expect(page.get_by_label("Prompt (editable)")).to_have_value("CT, abdomen, high contrast")
    page.get_by_label("Prompt (editable)").fill("liver, " * 60)
    expect(page.get_by_text(re.compile(r"has \d+ tokens"))).to_be_visible(timeout=PATIENCE)


@pytest.mark.parametrize("tab", ["Synthesis", "Segmentation"])
def test_a_narrow_screen_needs_no_sideways_scroll(page, tab):
    page.set_viewport_size({"width": 390, "height": 844})
    open_tab(page, tab)
    choose_example(page, "Abdominal CT")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("tab", ["Synthesis", "Segmentation"])
def test_every_control_has_a_name(page, tab):
    open_tab(page, tab)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, button, select')].filter(e =>
            e.offsetParent && !e.labels?.length && !e.ariaLabel && !e.textContent.trim() && !e.title
        ).map(e => e.outerHTML)"""
    )
    assert not nameless
    expect(page.get_by_role("button", name="Example: Chest X-ray").filter(visible=True)).to_be_visible()


def test_programs_get_the_same(address, tmp_path):
    client, example = Client(address, verbose=False), read_examples()[0]
    image, mask = handle_file(str(example.image)), handle_file(str(example.mask))
    files, manifest = client.predict(image, "X-ray, chest", mask, seed=3, num_inference_steps=3, api_name="/synthesize")
    again, _ = client.predict(image, "X-ray, chest", mask, seed=3, num_inference_steps=3, api_name="/synthesize")
    assert Path(files[0]).read_bytes() and manifest["images"][0]["settings"]["num_inference_steps"] == 3
    np.testing.assert_array_equal(np.asarray(Image.open(files[0])), np.asarray(Image.open(again[0])))
    found, result = client.predict(image, "lung", api_name="/segment")
    assert Image.open(found).size == (256, 256) and 0 <= result["highest_probability"] <= 1
    assert Image.open(client.predict(image, mask, api_name="/edges")[0]).size == (256, 256)
    listed = {model["name"]: model for model in client.predict(api_name="/models")}
    assert "lung" in listed["textdiff-mini"]["targets"]
    with pytest.raises(ValidationError, match="text is empty"):
        client.predict(image, "", api_name="/segment")
