"""The Segmentation tab as a user goes through it: one slice, a whole volume, a drawn true mask, training."""

from __future__ import annotations

import csv
import io
import re

import nibabel
import numpy as np
import pytest
from page_steps import PATIENCE, choose_example, open_tab, said, set_number, unfold
from PIL import Image
from playwright.sync_api import expect

from emitdiff.ui.examples import FOLDER

ANSWERED = re.compile("Found|Not found|Target absent")


@pytest.fixture(autouse=True)
def opened(page):
    open_tab(page, "Segmentation")


def find(page, text: str):
    page.get_by_label("What to find").fill(text)
    page.get_by_role("button", name="Find", exact=True).click()
    expect(said(page)).to_contain_text(ANSWERED, timeout=PATIENCE)


def save(page, button: str, path):
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    download.value.save_as(path)


def darkness(canvas) -> float:
    """The share of dark pixels where the editor stands: an empty one is white."""
    return float((np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("L")) < 90).mean())


def pixels(view) -> np.ndarray:
    """The pixels of a picture as the server sent it, whatever lies about it on the page."""
    data = view.evaluate("""async picture => {
        const bytes = new Uint8Array(await (await fetch(picture.src)).arrayBuffer());
        return Array.from(bytes);
    }""")
    return np.asarray(Image.open(io.BytesIO(bytes(data))).convert("RGB"))


def paint(page, canvas):
    """A stroke across the middle."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    across, down = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(across - 40, down)
    page.mouse.down()
    page.mouse.move(across + 40, down, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)


def test_a_sentence_with_and_without_itself(page, tmp_path):
    choose_example(page, "Chest X-ray")
    page.get_by_role("button", name="Example sentences").click()
    expect(page.get_by_label("Image modality")).to_have_value("X-ray")
    page.locator(".chips:visible").get_by_text("segment the left lung in this chest X-ray").click()
    expect(page.get_by_label("What to find")).to_have_value("segment the left lung in this chest X-ray")
    page.get_by_label("Compare with the result without text").check()
    page.get_by_role("button", name="Find", exact=True).click()
    expect(said(page)).to_contain_text("interpreted as “left lung”", timeout=PATIENCE)
    expect(page.get_by_text(re.compile(r"Dice between the two masks: 0\.\d\d"))).to_be_visible()
    expect(page.locator(".figures:visible b").first).to_have_text(re.compile(r"\d\.\d{3}"))
    expect(page.get_by_role("row", name="without the text")).to_be_visible()
    views = page.locator(".reading .view img")
    expect(views).to_have_count(2)
    before = [view.get_attribute("src") for view in views.all()]
    set_number(page, "Mask opacity, %", 90)
    for view, picture in zip(views.all(), before, strict=True):
        expect(view).not_to_have_attribute("src", picture)
    save(page, "Download mask", tmp_path / "mask.png")
    assert Image.open(tmp_path / "mask.png").size == (256, 256)


def test_what_is_not_there_is_said_plainly(page):
    choose_example(page, "Nuclei")
    find(page, "left ventricle")
    set_number(page, "Threshold", 0.95)  # a threshold is applied to what is known, no network runs
    expect(said(page)).to_contain_text(re.compile("^(Target absent|Not found): .*“left ventricle”"))


def test_what_was_not_taught_gets_no_mask_but_a_nearest_target(page):
    choose_example(page, "Chest X-ray")
    view = page.locator(".reading .view img").first
    expect(view).to_be_visible()
    before = pixels(view)
    page.get_by_label("What to find").fill("pneumonia")
    page.get_by_role("button", name="Find", exact=True).click()
    refused = "Nothing was looked for: “pneumonia” asks for nothing these weights were taught. Nearest: lung?"
    expect(said(page)).to_have_text(refused, timeout=PATIENCE)
    expect(page.get_by_text("These weights were not taught “pneumonia”. Taught: lung, left lung")).to_be_visible()
    assert np.array_equal(pixels(view), before), "no mask is drawn"
    expect(page.get_by_role("link", name="Download mask")).to_have_count(0)
    page.get_by_role("button", name="Look anyway").click()
    expect(said(page)).to_have_text(
        re.compile("^Looked anyway for “pneumonia”, which was not taught: "), timeout=PATIENCE
    )
    assert not np.array_equal(pixels(view), before)
    page.get_by_role("button", name="Find", exact=True).click()
    page.get_by_role("button", name="Find “lung”").click()
    expect(said(page)).to_have_text(re.compile("^Found “lung”"), timeout=PATIENCE)
    expect(page.get_by_label("What to find")).to_have_value("lung")
    expect(page.get_by_role("button", name="Look anyway")).to_be_hidden()


def test_a_drawn_true_mask_is_compared(page, tmp_path):
    choose_example(page, "Cardiac MRI")
    page.get_by_role("button", name="Draw the reference mask").click()
    canvas = page.locator(".canvas:visible canvas").first
    page.wait_for_timeout(3000)  # the slice comes onto the canvas, which is built again for it
    paint(page, canvas)
    page.get_by_role("button", name="Use the drawing as reference mask").click()
    expect(page.locator(".drop", has_text="Reference mask")).to_contain_text("_drawn_mask")
    find(page, "left ventricle")
    expect(page.locator(".figures:visible b").first).to_have_text(re.compile(r"0\.\d{3}"))
    save(page, "Download scores", tmp_path / "scores.csv")
    with open(tmp_path / "scores.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["text"] == "left ventricle" and 0 <= float(row["dice"]) < 1 and row["hd95_unit"] == "px"


def write_volume(path, slices: int):
    values = np.random.default_rng(0).normal(100, 20, (48, 40, slices)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 3, 1])), path)
    return path


def test_a_whole_volume_in_one_go(page, tmp_path):
    page.locator(".drop:visible input[type=file]").first.set_input_files(write_volume(tmp_path / "scan.nii.gz", 3))
    page.get_by_label("What to find").fill("liver")
    page.get_by_role("button", name="All 3 slices").click()
    expect(page.get_by_text("scan_mask.nii.gz: 1 inside")).to_be_visible(timeout=PATIENCE)
    set_number(page, "Slice", 3)
    expect(said(page)).to_contain_text(ANSWERED)
    save(page, "Download mask", tmp_path / "mask.nii.gz")
    mask, scan = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(tmp_path / "scan.nii.gz")
    assert mask.shape == scan.shape and np.array_equal(mask.affine, scan.affine)


def test_stop_ends_a_volume_between_two_slices(page, tmp_path):
    page.locator(".drop:visible input[type=file]").first.set_input_files(write_volume(tmp_path / "scan.nii.gz", 200))
    page.get_by_label("What to find").fill("liver")
    page.get_by_role("button", name="All 200 slices").click()
    expect(said(page)).to_contain_text(re.compile(r"Slice \d+ of 200"), timeout=PATIENCE)
    page.get_by_role("button", name="Stop").click()
    expect(said(page)).to_contain_text(re.compile(r"stopped after \d+ of 200"), timeout=15_000)
    expect(page.get_by_role("button", name="Find", exact=True)).to_be_enabled()


def test_the_walk_from_images_to_a_head_in_use(page, tmp_path):
    choose_example(page, "Cardiac MRI")  # before the panel is opened: its canvas must not stay empty
    page.get_by_role("button", name="Teach a new target").click()
    canvas = page.locator(".teaching .canvas canvas").first
    expect(canvas).to_be_visible()
    waited = 0
    while darkness(canvas) < 0.1 and (waited := waited + 1) <= 20:
        page.wait_for_timeout(1000)
    assert darkness(canvas) > 0.1
    page.get_by_role("button", name="Add as example").click()  # with its true mask
    expect(page.locator(".walk .now")).to_contain_text("Press Teach")
    choose_example(page, "Chest X-ray")
    page.get_by_role("button", name="Add without target").click()
    expect(page.get_by_text("2 examples.").first).to_be_visible()
    page.get_by_label("What the masks show").fill("bright disc")
    set_number(page, "Training time, seconds", 10)
    page.get_by_role("button", name="Teach", exact=True).click()
    taught = page.locator(".teaching .progress")
    expect(taught).to_contain_text(re.compile(r"Taught .*at least 100 are needed.*Keep learning"), timeout=PATIENCE)
    expect(page.locator("header")).to_contain_text("textdiff-mini")
    expect(page.get_by_role("button", name="Segment the image above")).to_be_disabled()
    page.get_by_role("button", name="Use it anyway").click()  # whoever wants it nevertheless says so
    expect(page.locator("header")).to_contain_text("trained here")
    expect(page.get_by_role("button", name="Segment the image above")).to_be_enabled()
    choose_example(page, "Cardiac MRI")
    find(page, "bright disc")
    expect(page.get_by_label("What to find")).to_have_value("bright disc")
    expect(page.locator(".chips:visible").get_by_text("bright disc", exact=True)).to_be_visible()
    save(page, "Download the head", tmp_path / "head.safetensors")
    assert (tmp_path / "head.safetensors").stat().st_size > 10_000
    expect(page.locator(".walk .done")).to_have_count(5)

    steps = int(re.search(r"in (\d+) steps", taught.text_content())[1])
    page.get_by_role("button", name="Keep learning").click()
    expect(taught).to_contain_text(re.compile(r"Step \d+ of \d+, about \d+ s left"), timeout=PATIENCE)
    assert int(re.search(r"Step (\d+)", taught.text_content())[1]) > steps, "from where it was"
    page.get_by_role("button", name="Stop", exact=True).filter(visible=True).click()
    expect(taught).to_contain_text("Taught “bright disc”", timeout=PATIENCE)
    unfold(page, "Expert")
    expect(page.get_by_label("Weights")).to_have_value("bright disc (trained here)")  # until one has looked

    page.reload()  # the head stays a choice, and the one chosen
    open_tab(page, "Segmentation")
    unfold(page, "Expert")
    expect(page.get_by_label("Weights")).to_have_value("bright disc (trained here)")
    choose_example(page, "Cardiac MRI")
    find(page, "bright disc")
    expect(said(page)).to_contain_text("“bright disc”")
    page.get_by_role("button", name="Teach a new target").click()
    expect(page.get_by_role("button", name="Keep learning")).to_be_enabled()
    save(page, "Download the head", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "head.safetensors").read_bytes()


def test_one_of_four_examples_is_kept_aside_and_looked_at_before_the_head_is_used(page):
    page.get_by_role("button", name="Teach a new target").click()
    chosen = [card for name in ("cardiac_mri", "breast_ultrasound", "prostate_mri", "abdominal_ct")
              for card in (FOLDER / f"painted_{name}.png", FOLDER / f"painted_{name}_mask.png")]  # fmt: skip
    page.locator(".teaching .drop input[type=file]").first.set_input_files(chosen)  # all at once
    expect(page.get_by_text("4 examples.").first).to_be_visible()
    page.get_by_label("What the masks show").fill("something round")
    set_number(page, "Training time, seconds", 20)
    page.get_by_role("button", name="Teach", exact=True).click()
    aside = page.locator(".teaching .view img")
    expect(aside).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".teaching .progress")).to_contain_text(
        re.compile(r"Taught .* Dice 0\.\d\d on the image kept aside"), timeout=PATIENCE
    )
    orange = (np.abs(pixels(aside).astype(int) - (230, 159, 0)).max(-1) < 12).sum()
    assert orange > 100, "the mask of the image kept aside is drawn as a line over what the head marks"
    expect(page.locator("header")).not_to_contain_text("trained here")
    expect(page.get_by_text("Weights: textdiff-mini")).to_be_visible()
