"""What a user does on the page, step by step: shared by the tests of this folder."""

from __future__ import annotations

import re

from playwright.sync_api import expect

PATIENCE = 90_000  # milliseconds for anything that runs a network; the first run loads the weights
LISTENING = 400  # milliseconds that controls take to listen after they appeared

# What starts the work of each tab.
BUTTONS = {"Synthesis": "Generate", "Segmentation": "Find", "Comparison": "Compare", "Dataset": "Augment"}


def open_tab(page, name: str):
    page.get_by_role("tab", name=name).click()
    expect(page.get_by_role("button", name=BUTTONS[name], exact=True)).to_be_visible()


def choose_example(page, title: str):
    page.locator(".cards button:visible", has_text=title).click()
    expect(page.get_by_text(re.compile(f"^{title}, ")).filter(visible=True)).to_be_visible()


def unfold(page, name: str):
    page.get_by_role("button", name=name).filter(visible=True).click()
    page.wait_for_timeout(LISTENING)


def set_number(page, label: str, value: float):
    field = page.get_by_label(f"number input for {label}")
    page.wait_for_timeout(LISTENING)
    field.fill(str(value))
    field.press("Tab")
    expect(page.get_by_label(f"range slider for {label}")).to_have_value(str(value))


def said(page):
    """The line above the gallery or above the image that was read."""
    return page.locator(":is(.results, .reading) .progress:visible")


def few_steps(page, images: int, steps: int = 4):
    set_number(page, "Images", images)
    unfold(page, "Expert")
    set_number(page, "Steps", steps)
