"""The Dataset tab as a user goes through it: a small dataset augmented, found again after a refresh, and exported."""

from __future__ import annotations

import json
import re
import zipfile

from page_steps import PATIENCE, open_tab, said, unfold
from playwright.sync_api import expect


def test_a_dataset_is_augmented_found_again_and_exported(page, tmp_path):
    open_tab(page, "Dataset")
    expect(page.get_by_role("button", name="Augment", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Try four example images").click()
    expect(page.get_by_text("4 images in 4 groups")).to_be_visible()
    unfold(page, "Expert")
    page.get_by_label("Steps (0: checkpoint default)").fill("6")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(said(page)).to_contain_text(re.compile("Generating image [234] of 4"), timeout=PATIENCE)

    page.reload()  # the server goes on meanwhile
    open_tab(page, "Dataset")
    expect(said(page)).to_contain_text("4 synthetic images", timeout=PATIENCE)
    unfold(page, "Expert")
    expect(page.get_by_label("Steps (0: checkpoint default)")).to_have_value("6")
    report = page.frame_locator("iframe.report")
    expect(report.locator("article")).to_have_count(4)
    expect(report.locator("article img").first).to_be_visible()

    page.get_by_label("Export format").click()
    page.get_by_role("option", name="nnU-Net").click()
    page.get_by_label("Images", exact=True).filter(visible=True).click()
    page.get_by_role("option", name="all generated images").click()
    page.get_by_role("button", name="Prepare ZIP").click()
    expect(page.get_by_text("example-ultrasound_all_nnunet.zip")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download ZIP").filter(visible=True).click()
    download.value.save_as(tmp_path / "export.zip")
    with zipfile.ZipFile(tmp_path / "export.zip") as zipped:
        names = zipped.namelist()
        content = json.loads(zipped.read("Dataset501_example-ultrasound/dataset.json"))
    assert content["numTraining"] == 8 and sum("/imagesTr/" in name for name in names) == 8
    assert sum("/labelsTr/synthetic_" in name for name in names) == 4

    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Remove this dataset").click()
    expect(said(page)).to_contain_text("Dataset removed")
    expect(page.locator("iframe.report")).to_have_count(0)
    page.reload()
    open_tab(page, "Dataset")
    expect(page.get_by_text("Augment a small labelled dataset")).to_be_visible()


def test_own_images_and_masks_are_imported_in_the_layout_of_the_sample(page, tmp_path):
    open_tab(page, "Dataset")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download a sample ZIP").click()
    download.value.save_as(tmp_path / "mine.zip")
    page.locator(".drop input[type=file]:not([disabled])").last.set_input_files(tmp_path / "mine.zip")
    expect(page.get_by_text("folders of images and masks, 4 images with masks")).to_be_visible()
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="Still missing: the modality")).to_be_visible()
    for label, value in (("Modality", "Ultrasound"), ("Organ", "breast")):
        page.get_by_label(label, exact=True).filter(visible=True).fill(value)
        page.keyboard.press("Enter")
    page.get_by_label("What the masks show (the class)").fill("lesion")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text(": Ultrasound, breast. 4 images in 4 groups.")).to_be_visible()
    page.get_by_text("About the import").click()
    expect(page.get_by_text("Layout: folders of images and masks, 4 case(s).")).to_be_visible()
    expect(page.get_by_role("button", name="Augment", exact=True)).to_be_enabled()
    expect(page.get_by_role("button", name="Import", exact=True)).to_be_hidden()


def test_a_file_that_is_no_dataset_is_said_beside_the_field(page, tmp_path):
    open_tab(page, "Dataset")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zipped:
        zipped.writestr("readme.txt", "hello")
    page.locator(".drop input[type=file]:not([disabled])").last.set_input_files(tmp_path / "other.zip")
    expect(page.get_by_role("alert").filter(has_text="No images with masks were found")).to_be_visible()
    expect(page.get_by_role("button", name="Augment", exact=True)).to_be_disabled()
