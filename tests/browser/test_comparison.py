"""The Comparison tab as a user goes through it."""

from __future__ import annotations

import re

import pytest
from page_steps import PATIENCE, choose_example, open_tab, said
from PIL import Image
from playwright.sync_api import expect

from emitdiff.provenance import read_synthetic_settings


@pytest.fixture
def grid(page):
    """The table of the tab, opened."""
    open_tab(page, "Comparison")
    return page.locator(".grid")


def begin_with(page, grid, title: str):
    """Chooses an example and waits until its image and its lists are there."""
    choose_example(page, title)
    expect(grid.get_by_role("button", name="Enlarge: Source image")).to_be_visible(timeout=PATIENCE)


def compare(page, across: str, down: str):
    page.get_by_label("Values across").fill(across)
    page.get_by_label("Values down").fill(down)
    page.get_by_role("button", name="Compare", exact=True).click()


def test_two_doses_of_structure_and_two_seeds(page, grid, tmp_path):
    begin_with(page, grid, "Chest X-ray")
    compare(page, "1, 0.5", "3, 4")
    # The image and less than all cells: they come one by one.
    page.wait_for_function("[2, 3, 4].includes(document.querySelectorAll('.grid td img').length)", polling="raf")
    expect(said(page)).to_contain_text("4 of 4 cells filled", timeout=PATIENCE)
    expect(grid.locator("td img:visible")).to_have_count(5)
    expect(grid.get_by_role("columnheader")).to_have_text(["Structure 1", "Structure 0.5"])
    expect(grid.get_by_text(re.compile(r"^edges 0\.\d\d$")).first).to_be_visible()
    cell = grid.get_by_role("button", name="Enlarge: Seed 4, Structure 0.5")
    cell.focus()
    page.keyboard.press("Enter")
    large = page.locator(".enlarged:popover-open")
    expect(large.locator("img")).to_be_visible()
    expect(large.locator("img")).to_have_js_property("naturalWidth", 256)
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download figure").click()
    download.value.save_as(tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").width > 700
    assert read_synthetic_settings(tmp_path / "figure.png")["comparison"] == {"structure": [1, 0.5], "seed": [3, 4]}


def test_two_sentences_and_two_thresholds(page, grid):
    page.get_by_label("Segmentation", exact=True).check()
    begin_with(page, grid, "Chest X-ray")
    expect(page.get_by_label("Values across")).to_have_value(re.compile("^lung\n.*no text", re.DOTALL))
    compare(page, "lung\nprostate", "0.3, 0.7")
    expect(said(page)).to_contain_text("4 of 4 cells filled", timeout=PATIENCE)
    expect(grid.get_by_text(re.compile(r"^Dice [01]\.\d{3}$"))).to_have_count(4)
    expect(grid.get_by_text(re.compile("Not found|Not present")).first).to_be_visible()


def test_a_wrong_list_is_named_beside_it_and_stop_stops(page, grid):
    begin_with(page, grid, "Nuclei")
    page.get_by_label("Values across").fill("1, much")
    page.get_by_label("Values across").press("Tab")
    expect(page.get_by_role("alert").filter(has_text="The structure cannot be “much”")).to_be_visible()
    compare(page, "1, 0.9, 0.8, 0.7, 0.6, 0.5", "1, 2, 3, 4, 5, 6")
    expect(said(page)).to_contain_text(re.compile(r"Cell \d+ of 36"), timeout=PATIENCE)
    page.get_by_role("button", name="Stop").filter(visible=True).click()
    expect(said(page)).to_contain_text(re.compile(r"Stopped: \d+ of 36 cells"), timeout=20_000)
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_enabled()


def test_a_wide_grid_scrolls_in_its_own_frame(page, grid):
    page.set_viewport_size({"width": 390, "height": 844})
    begin_with(page, grid, "Abdominal CT")
    page.get_by_label("Values across").press("End")
    page.get_by_label("Values across").press_sequentially(", 0.4, 0.3, 0.2")
    expect(grid.get_by_role("columnheader")).to_have_count(6)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert grid.evaluate("frame => frame.scrollWidth > frame.clientWidth && frame.tabIndex === 0")


def test_what_was_chosen_is_there_after_a_refresh(page, grid):
    page.get_by_label("Segmentation", exact=True).check()
    page.get_by_label("What to find").filter(visible=True).fill("the nuclei")
    page.get_by_label("Values down").fill("0.2, 0.4")
    page.get_by_label("Values down").press("Tab")
    page.wait_for_timeout(1000)
    page.reload()
    open_tab(page, "Comparison")
    expect(page.get_by_label("Segmentation", exact=True)).to_be_checked()
    expect(page.get_by_label("Values down")).to_have_value("0.2, 0.4")
    expect(page.get_by_label("What to find").filter(visible=True)).to_have_value("the nuclei")
    expect(grid.get_by_role("rowheader")).to_have_text(["Threshold 0.2", "Threshold 0.4"])


def test_a_menu_that_is_only_passed_asks_nothing_wrong(page, grid):
    begin_with(page, grid, "Nuclei")
    answers = []
    page.on("response", lambda response: answers.append((response.status, response.url)))
    page.get_by_label("Vary across").focus()
    page.keyboard.press("Tab")
    page.wait_for_timeout(1500)
    assert answers and all(status < 400 for status, _ in answers)
    expect(page.get_by_label("Values across")).to_have_value("1, 0.75, 0.5")


def test_a_prompt_that_is_pasted_begins_the_list_of_prompts(page, grid):
    page.get_by_label("Vary across").click()
    page.get_by_role("option", name="Prompt").click()
    expect(page.get_by_label("Values across")).to_have_value("")
    prompt = page.get_by_role("textbox", name=re.compile(r"^Prompt\b")).filter(visible=True)
    prompt.fill("CT, abdomen")  # at once, as a paste does
    prompt.press("Tab")
    expect(page.get_by_label("Values across")).to_have_value("CT, abdomen\nCT, abdomen, dark\nCT, abdomen, bright")
