"""What goes into a run of the synthesis, as a user brings it: an example, an own volume, a PNG made here, a mask."""

from __future__ import annotations

import re

import numpy as np
from page_steps import PATIENCE, choose_example, said, set_number
from PIL import Image
from playwright.sync_api import expect

from emitdiff.provenance import save_synthetic_png
from emitdiff.ui.examples import read_examples

CARDS = {card.title: card for card in read_examples()}


def view(page, label: str):
    return page.locator(".workspace:visible .view", has_text=label).locator("img")


def test_an_example_shows_its_stored_results_at_once(page):
    choose_example(page, "Prostate MRI")
    expect(said(page)).to_contain_text("Precomputed results: 4 images", timeout=PATIENCE)
    expect(page.locator(".painted .thumbnail-item")).to_have_count(4)
    for label in ("Image", "Control image"):
        expect(view(page, label).first).to_be_visible()
    expect(page.get_by_label("Prompt (editable)")).to_have_value("MRI, prostate, prostate")
    expect(page.get_by_text(re.compile(r"^\d+ of \d+ tokens$"))).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Download ZIP")).to_be_enabled(timeout=PATIENCE)


def test_settings_outlive_a_refresh(page):
    page.locator(".chips button:visible", has_text="Ultrasound, breast").click()
    expect(page.get_by_label("Prompt (editable)")).to_have_value("Ultrasound, breast, benign lesion")
    set_number(page, "Images", 3)
    page.get_by_label("First seed").fill("42")
    page.get_by_label("First seed").press("Tab")
    page.wait_for_timeout(1000)  # what is typed is stored a moment later
    page.reload()
    expect(page.get_by_label("First seed")).to_have_value("42", timeout=PATIENCE)
    expect(page.get_by_label("number input for Images")).to_have_value("3")
    expect(page.get_by_label("Prompt (editable)")).to_have_value("Ultrasound, breast, benign lesion")
    expect(page.get_by_label("Finding", exact=True)).to_have_value("benign lesion")


def test_a_png_made_here_brings_everything_back(page, tmp_path):
    settings = {
        "prompt": "MRI, heart, left ventricle, noisy", "negative_prompt": "", "num_images": 1, "seed": 77,
        "num_inference_steps": 5, "guidance_scale": 2.0, "controlnet_conditioning_scale": 1.2, "detector": "canny",
        "boundary": True, "low_threshold": 30, "high_threshold": 90, "structure": 0.8, "preset": "default",
        "edit": {"move_x": 0.1, "move_y": 0.0, "scale": 1.0, "rotate": 0.0, "deform": 0.0, "seed": 0},
        "checkpoint": "emitdiff-mini", "source": "painted_cardiac_mri",
    }  # fmt: skip
    picture = np.asarray(Image.open(CARDS["Cardiac MRI"].image).convert("RGB"))
    path = save_synthetic_png(picture, tmp_path / "synthetic_heart.png", settings)
    page.locator(".drop input[type=file]").first.set_input_files(path)
    expect(page.get_by_text("generated from the example Cardiac MRI")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_label("Prompt (editable)")).to_have_value(settings["prompt"])
    expect(page.get_by_label("Appearance", exact=True)).to_have_value("noisy")
    expect(page.get_by_label("First seed")).to_have_value("77")
    page.get_by_role("button", name="Edges", exact=False).and_(page.locator(".label-wrap")).click()
    expect(page.get_by_label("Edge detector")).to_have_value("canny")
    expect(page.get_by_label("number input for Structure")).to_have_value("0.8")
    expect(page.locator(".drop", has_text="Mask (optional): becomes")).to_contain_text("painted_cardiac_mri_mask")


def test_the_segmenter_proposes_the_mask(page, tmp_path):
    Image.open(CARDS["Chest X-ray"].image).save(tmp_path / "own.png")
    page.locator(".drop input[type=file]").first.set_input_files(tmp_path / "own.png")
    expect(page.get_by_text("own.png: 256 x 256")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Propose a mask with the segmenter").click()
    asked = page.get_by_label("Target (word or sentence)")
    expect(asked).to_be_visible()
    asked.fill("lung")
    asked.press("Enter")
    page.get_by_role("button", name="Propose the mask").click()
    expect(page.get_by_text("Found “lung”")).to_be_visible(timeout=PATIENCE)
    field = page.locator(".drop", has_text="Mask (optional): becomes")
    expect(field).to_contain_text("own_proposed_mask")
    page.get_by_role("button", name="Draw the mask").click()
    canvas = page.locator(".canvas:visible canvas").first
    expect(canvas).to_be_visible()
    page.wait_for_timeout(1500)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + 40, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Use the drawing as mask").click()
    expect(field).to_contain_text("own_drawn_mask")
    expect(page.get_by_text("Found “lung”")).to_have_count(0)


def test_a_volume_has_a_slice_slider_and_the_patients_sides(page, tmp_path):
    import nibabel

    values = np.random.default_rng(0).integers(0, 900, (48, 48, 9)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-2.0, 2, 3, 1])), tmp_path / "volume.nii.gz")
    page.locator(".drop input[type=file]").first.set_input_files(tmp_path / "volume.nii.gz")
    expect(page.get_by_text("patient's right on the left")).to_be_visible(timeout=PATIENCE)
    shown = view(page, "Image").first
    expect(shown).to_be_visible(timeout=PATIENCE)
    before = shown.get_attribute("src")
    set_number(page, "Slice", 2)
    expect(shown).not_to_have_attribute("src", before, timeout=PATIENCE)


def test_another_time_point_of_a_volume_is_shown_at_the_same_slice(page, tmp_path):
    import nibabel

    values = np.random.default_rng(0).integers(0, 900, (48, 48, 9, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-2.0, 2, 3, 1])), tmp_path / "cine.nii.gz")
    expect(page.get_by_label("Time point").locator("visible=true")).to_have_count(0)
    page.locator(".drop input[type=file]").first.set_input_files(tmp_path / "cine.nii.gz")
    expect(page.get_by_text("It holds 3 volumes")).to_be_visible(timeout=PATIENCE)
    set_number(page, "Slice", 2)
    shown = view(page, "Image").first
    expect(shown).to_be_visible(timeout=PATIENCE)
    before = shown.get_attribute("src")
    set_number(page, "Time point", 3)
    expect(page.get_by_text("It holds 3 volumes")).to_have_count(0, timeout=PATIENCE)
    expect(shown).not_to_have_attribute("src", before, timeout=PATIENCE)
    expect(page.get_by_label("number input for Slice").locator("visible=true")).to_have_value("2")


def test_an_ultrasound_after_the_prostate_example_is_not_painted_as_mri_in_silence(page, tmp_path):
    prompt = page.get_by_label("Prompt (editable)")
    choose_example(page, "Prostate MRI")
    expect(prompt).to_have_value("MRI, prostate, prostate")
    Image.open(CARDS["Breast ultrasound"].image).save(tmp_path / "own.png")
    files = page.locator(".drop input[type=file]")
    files.first.set_input_files(tmp_path / "own.png")
    contradiction = page.get_by_text("This looks like a breast ultrasound; the prompt says MRI, prostate.")
    expect(contradiction).to_be_visible(timeout=PATIENCE)
    expect(prompt).to_have_value("MRI, prostate, prostate")
    page.get_by_role("button", name="Use “Ultrasound, breast”").click()
    expect(prompt).to_have_value("Ultrasound, breast")
    expect(page.get_by_label("Modality", exact=True)).to_have_value("Ultrasound")
    expect(contradiction).to_have_count(0)
    expect(page.get_by_role("button", name="Use “")).to_have_count(0)
    prompt.fill("CT, liver")  # a contradiction of one's own
    expect(page.get_by_text("the prompt says CT, abdomen")).to_be_visible()
    prompt.fill("")
    page.get_by_role("button", name="Clear").first.click()
    Image.open(CARDS["Nuclei"].image).save(tmp_path / "cells.png")
    files.first.set_input_files(tmp_path / "cells.png")
    expect(page.get_by_text("This looks like microscopy. The prompt was set to it")).to_be_visible(timeout=PATIENCE)
    expect(prompt).to_have_value("Microscopy, nuclei")


def test_a_menu_that_is_only_passed_resets_nothing(page):
    choose_example(page, "Nuclei")
    prompt = page.get_by_label("Prompt (editable)").filter(visible=True)
    expect(prompt).to_have_value(re.compile("icroscopy"))
    prompt.fill("my own words")
    page.get_by_label("Organ").filter(visible=True).focus()
    for _ in range(3):
        page.keyboard.press("Tab")
    page.wait_for_timeout(1500)
    expect(prompt).to_have_value("my own words")

    menu = page.get_by_label("Appearance").filter(visible=True)
    menu.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(prompt).not_to_have_value("my own words")
    menu.click()
    page.get_by_role("option", name="dark", exact=True).click()
    expect(prompt).to_have_value(re.compile("icroscopy.*dark"))


def test_words_that_are_pasted_or_erased_reach_the_prompt(page):
    words, prompt = page.get_by_label("Additional words"), page.get_by_label("Prompt (editable)")
    page.locator(".chips button:visible", has_text="Ultrasound, breast").click()
    expect(prompt).to_have_value("Ultrasound, breast, benign lesion")
    words.fill("of a child")  # at once, as a paste does
    words.press("Tab")
    expect(prompt).to_have_value("Ultrasound, breast, benign lesion, of a child")
    words.fill("")
    words.press("Tab")
    expect(prompt).to_have_value("Ultrasound, breast, benign lesion")
    prompt.fill("my own words")
    words.focus()
    words.press("Tab")
    page.wait_for_timeout(1500)
    expect(prompt).to_have_value("my own words")


def test_an_image_taken_away_leaves_its_mask_and_comes_back_with_what_was_generated_from_it(page, tmp_path):
    Image.open(CARDS["Chest X-ray"].image).save(tmp_path / "own.png")
    picture = np.asarray(Image.open(tmp_path / "own.png").convert("RGB"))
    made = save_synthetic_png(picture, tmp_path / "synthetic_own.png", {"prompt": "X-ray", "seed": 7, "source": "own"})
    files = page.locator(".drop:visible", has=page.locator("input[type=file], .file-preview"))
    image, mask = files.nth(0), files.nth(1)
    mask.locator("input[type=file]").set_input_files(CARDS["Chest X-ray"].mask)  # first the mask, then its image
    expect(page.get_by_text("Generated from the mask alone")).to_be_visible(timeout=PATIENCE)
    image.locator("input[type=file]").set_input_files(tmp_path / "own.png")
    expect(page.get_by_text("own.png: 256 x 256")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("Generated from the mask alone")).to_have_count(0, timeout=PATIENCE)
    expect(mask).to_contain_text("painted_chest_xray_mask")
    shown = view(page, "Image").first
    before = shown.get_attribute("src")
    image.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("Generated from the mask alone")).to_be_visible(timeout=PATIENCE)
    expect(shown).not_to_have_attribute("src", before)
    image.locator("input[type=file]").set_input_files(made)
    expect(page.get_by_text("generated from own.png, which is loaded again")).to_be_visible(timeout=PATIENCE)
    expect(shown).to_have_attribute("src", before, timeout=PATIENCE)
    expect(mask).to_contain_text("painted_chest_xray_mask")


def test_an_error_goes_once_its_cause_is_repaired(page, tmp_path):
    (tmp_path / "own.png").write_bytes(b"no picture")
    files = page.locator(".drop:visible input[type=file]")
    files.nth(0).set_input_files(tmp_path / "own.png")
    alert = page.get_by_role("alert").filter(visible=True)
    expect(alert).to_contain_text("own.png", timeout=PATIENCE)
    files.nth(1).set_input_files(CARDS["Chest X-ray"].mask)
    expect(alert).to_have_count(0, timeout=PATIENCE)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(said(page)).to_contain_text("The prompt is empty", timeout=PATIENCE)
    page.get_by_label("Prompt (editable)").fill("X-ray")
    expect(said(page)).to_contain_text("press Generate")
    expect(alert).to_have_count(0)


def test_the_words_of_the_canvas_are_beside_its_tools(page):
    choose_example(page, "Chest X-ray")
    page.get_by_role("button", name="Draw the mask").click()
    expect(page.get_by_text("Paint over the target.")).to_be_visible()
    canvas = page.locator(".canvas:visible")
    expect(canvas.get_by_role("button", name="Undo")).to_be_visible()
    words = canvas.locator("[data-testid=block-label]").bounding_box()
    tools = canvas.locator("button:visible").evaluate_all("all => all.map(one => one.getBoundingClientRect().toJSON())")
    assert all(tool["left"] >= words["x"] + words["width"] or tool["top"] >= words["y"] + words["height"]
               for tool in tools)  # fmt: skip
