"""Takes the screenshots of the documentation from a running application: `python docs/screenshots.py [ADDRESS]`.

Its tabs at 1440 and 390 pixels, light and dark, after a run on an example. Needs playwright and Chromium on the PATH.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

FOLDER = Path(__file__).parent
SIZES = {1440: 940, 390: 844}
SUFFIX = {1440: "", 390: "_narrow", "light": "", "dark": "_dark"}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
PATIENCE = 300_000
SAID = ":is(.results, .reading) .progress:visible"


def choose_example(page: Page, title: str) -> None:
    page.locator(".cards button:visible", has_text=title).click()
    expect(page.get_by_text(re.compile(f"^{title}, ")).filter(visible=True)).to_be_visible()
    page.wait_for_timeout(1500)


def show_synthesis(page: Page) -> None:
    choose_example(page, "Chest X-ray")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(SAID)).to_contain_text("synthetic images", timeout=PATIENCE)


def show_segmentation(page: Page) -> None:
    page.get_by_role("tab", name="Segmentation").click()
    choose_example(page, "Chest X-ray")
    page.get_by_role("button", name="Find").click()
    expect(page.locator(SAID)).to_contain_text("ound", timeout=PATIENCE)


def show_comparison(page: Page) -> None:
    page.get_by_role("tab", name="Comparison").click()
    choose_example(page, "Chest X-ray")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator(SAID)).to_contain_text("cells filled", timeout=PATIENCE)


def show_dataset(page: Page) -> None:
    page.get_by_role("tab", name="Dataset").click()
    page.get_by_role("button", name="Try four example images").click()
    expect(page.get_by_text("4 images in 4 groups")).to_be_visible()
    page.get_by_role("button", name="Augment", exact=True).click()
    expect(page.locator(SAID)).to_contain_text("4 synthetic images: ", timeout=PATIENCE)
    expect(page.frame_locator("iframe.report").locator("article img").first).to_be_visible()


TABS = {
    "synthesis": show_synthesis, "segmentation": show_segmentation, "comparison": show_comparison,
    "dataset": show_dataset,
}  # fmt: skip


def take(page: Page, name: str, width: int) -> None:
    page.evaluate("window.scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    if width < 1000:  # the whole page: what sticks to an edge of the window would stand in the middle of it
        page.add_style_tag(content=".actions { position: static !important; }")
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")  # pictures are fetched when they come into view
        page.wait_for_timeout(1000)
        page.evaluate("window.scrollTo(0, 0)")
        if (report := page.locator("iframe.report:visible")).count():  # a frame out of sight is not drawn
            report.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
    page.screenshot(path=FOLDER / name, full_page=width < 1000)
    print(FOLDER / name)


def main(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for theme in ("light", "dark"):
            for width, height in SIZES.items():
                for tab, show in TABS.items():
                    page = browser.new_page(viewport={"width": width, "height": height})
                    page.goto(f"{address}/?__theme={theme}")
                    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_visible(timeout=20_000)
                    show(page)
                    take(page, f"{tab}{SUFFIX[width]}{SUFFIX[theme]}.png", width)
                    page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860")
