"""What is done with synthetic images once they are there, in a real browser."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from page_steps import PATIENCE, choose_example, few_steps, said
from playwright.sync_api import expect

from emitdiff.provenance import read_synthetic_settings


def paint(page, images: int):
    choose_example(page, "Chest X-ray")
    few_steps(page, images, steps=2)
    page.get_by_label("First seed").fill("11")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(said(page)).to_contain_text(f"{images} synthetic images in", timeout=PATIENCE)
    expect(page.locator(".painted .thumbnail-item")).to_have_count(images)


def download(page, folder: Path) -> set[str]:
    with page.expect_download() as taken:
        page.get_by_role("button", name="Download ZIP").click()
    taken.value.save_as(folder / "taken.zip")
    with zipfile.ZipFile(folder / "taken.zip") as archive:
        archive.extractall(folder)
        return set(archive.namelist())


def test_images_are_looked_at_dropped_and_taken_away(page, tmp_path):
    paint(page, images=2)
    expect(page.get_by_text(re.compile(r"Compared with the real image: edge F1 0\.\d\d, MS-SSIM"))).to_be_visible()
    page.get_by_label("Side by side").check()
    slider = page.locator(".pair-view")
    expect(slider.locator("img")).to_have_count(2)
    page.locator(".painted .thumbnail-item").nth(1).click()
    expect(page.get_by_text("Image 2 of 2: seed 12")).to_be_visible()
    after = slider.locator("img").nth(1)
    plain = after.get_attribute("src")
    page.get_by_label("Mask outline").check()
    expect(after).not_to_have_attribute("src", plain)
    handle = slider.get_by_test_id("slider")
    before = handle.get_attribute("style")
    page.get_by_label("range slider for Divider between real and synthetic").press("Home")  # as the keyboard does it
    expect(handle).not_to_have_attribute("style", before)
    page.get_by_label("All images").check()
    expect(slider).to_have_count(0)
    page.get_by_label("Keep", exact=True).uncheck()
    expect(page.get_by_text("1 dropped, 1 image.")).to_be_visible()
    names = download(page, tmp_path)
    assert sum(name.startswith("images/") for name in names) == 1
    (entry,) = json.loads((tmp_path / "manifest.json").read_text())["images"]
    assert entry["seed"] == 11 and 0 < entry["scores"]["edge_f1"] <= 1


def test_another_layout_and_the_segmentation_take_an_image_over(page, tmp_path):
    paint(page, images=2)
    page.get_by_label("Download as").click()
    page.get_by_role("option", name="nnU-Net").click()
    page.get_by_label("Class names").fill("lung")
    expect(page.get_by_text("synthetic_painted_chest_xray_nnunet.zip: 2 images.")).to_be_visible()
    page.wait_for_timeout(1000)
    names = download(page, tmp_path)
    described = json.loads((tmp_path / "Dataset501_painted_chest_xray" / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "lung": 1} and described["numTraining"] == 2
    (image,) = (name for name in names if name.endswith("seed12_0000.png"))
    assert read_synthetic_settings(tmp_path / image)["seed"] == 12
    page.get_by_role("button", name="Send to segmentation").click()
    expect(page.get_by_role("button", name="Find", exact=True)).to_be_visible()
    expect(page.get_by_text("seed11.png, a synthetic image generated on this page.")).to_be_visible()
    page.get_by_label("What to find").fill("lung")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(said(page)).to_contain_text(re.compile("Found|Not found"), timeout=PATIENCE)
    expect(page.locator(".figures:visible b").first).to_have_text(re.compile(r"\d\.\d{3}"))


def test_settings_come_back_and_variations_join_the_others(page):
    paint(page, images=2)
    page.get_by_label("First seed").fill("99")
    page.get_by_label("Prompt (editable)").fill("something else")
    page.locator(".painted .thumbnail-item").nth(1).click()
    expect(page.get_by_text("Image 2 of 2: seed 12")).to_be_visible()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_label("First seed")).to_have_value("12")
    expect(page.get_by_label("Prompt (editable)")).to_have_value(re.compile("X-ray, chest"))
    page.get_by_role("button", name="Generate variations").click()
    expect(said(page)).to_contain_text("2 variations in", timeout=PATIENCE)
    expect(page.get_by_text("Image 2 of 4: seed 12")).to_be_visible()  # it is large, so it stays the chosen one
    page.locator(".painted .preview .thumbnail-item").nth(2).click()
    expect(page.get_by_text("variation of the synthetic image with seed 12")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def test_the_stored_image_beside_the_real_one_is_marked_and_all_images_are_all_again(page):
    choose_example(page, "Chest X-ray")
    tiles = page.locator(".painted .thumbnail-item")
    expect(tiles).to_have_count(4, timeout=PATIENCE)
    page.get_by_label("Side by side").check()
    expect(tiles.nth(0)).to_have_class(re.compile("selected"))
    tiles.nth(2).click()
    expect(tiles.nth(2)).to_have_class(re.compile("selected"))
    expect(page.get_by_text("Image 3 of 4: seed 2")).to_be_visible()
    page.get_by_label("All images").check()
    expect(page.locator(".pair-view")).to_have_count(0)
    expect(page.locator(".painted .preview")).to_have_count(0)
    expect(tiles).to_have_count(4)
    tiles.nth(1).click()
    expect(page.locator(".painted .preview")).to_have_count(1)
    page.get_by_label("Side by side").check()
    expect(page.locator(".painted .preview")).to_have_count(0)
    expect(tiles.nth(1)).to_have_class(re.compile("selected"))
    choose_example(page, "Nuclei")
    expect(page.get_by_label("All images")).to_be_checked()
    expect(page.locator(".painted .preview")).to_have_count(0)


def test_the_words_of_two_images_stand_below_them_and_are_whole_on_a_narrow_screen(page):
    paint(page, images=2)
    box, tile = page.locator(".painted"), page.locator(".painted .thumbnail-item").first
    expect(tile).to_contain_text("MS-SSIM", timeout=PATIENCE)
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(500)
        picture, words = tile.locator("img").bounding_box(), tile.locator(".caption-label")
        below = words.bounding_box()["y"] - picture["y"] - picture["height"]
        assert 0 <= below < 8 and box.bounding_box()["height"] < picture["height"] + 80
        assert words.evaluate("words => words.scrollWidth <= words.clientWidth")
    tile.click()
    expect(box.locator(".preview")).to_be_visible()
    assert box.bounding_box()["height"] > 300
