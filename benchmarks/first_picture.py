"""How long a user waits for the first useful picture, in a real browser.

    python -m benchmarks.first_picture [--image OWN.png] [--repeat 5]

Starts the application and opens it in headless Chromium. Measured are the page until its button can be pressed, the
press on an example card until its four stored images are drawn, and the press of Generate on one's own PNG, with the
settings as they are, until the page tells of the second synthetic image, so that the first is finished; then the
segmentation of the same file until its mask is drawn. Medians, in seconds. The weights are loaded while the page opens:
the first repeat, which may wait for them, is printed apart.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.application import ROOT, application

EXAMPLE = ROOT / "emitdiff" / "ui" / "examples" / "painted_chest_xray.png"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 300_000
# Elements with a picture in them that has been fetched and decoded.
TILES = "document.querySelectorAll('.painted .thumbnail-item img')"
DRAWN = f"want => [...{TILES}].filter(tile => tile.naturalWidth).length >= want"
READ = "() => [...document.querySelectorAll('.reading .view img')].some(i => i.naturalWidth)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, default=EXAMPLE, help="taken as a user's own file")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        own = Path(shutil.copy(arguments.image, Path(folder) / "own.png"))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with application() as (address, _):
            waits = [measured(browser.new_page(), address, own) for _ in range(arguments.repeat + 1)]
    for name in waits[0]:
        later = [wait[name] for wait in waits[1:]]
        print(f"{name:44} first {waits[0][name]:5.2f} s; median {median(later):5.2f} s of {len(later)}, "
              f"slowest {max(later):5.2f} s")  # fmt: skip


def measured(page: Page, address: str, own: Path) -> dict[str, float]:
    """Seconds from each press to what it shows."""
    started, waits = time.perf_counter(), {}
    page.goto(address)
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_visible(timeout=PATIENCE)
    waits["page, from its address to its buttons"] = time.perf_counter() - started

    card = page.locator(".cards button:visible", has_text="Prostate MRI")
    expect(card).to_be_visible()
    started = time.perf_counter()
    card.click()
    page.wait_for_function(DRAWN, arg=4, timeout=PATIENCE)
    waits["example, from its card to four stored images"] = time.perf_counter() - started

    started = time.perf_counter()
    page.locator(".drop input[type=file]").first.set_input_files(own)
    expect(page.get_by_text("own.png: ").filter(visible=True)).to_be_visible(timeout=PATIENCE)
    waits["own PNG, from choosing it to seeing it"] = time.perf_counter() - started
    page.get_by_label("Prompt (editable)").fill("X-ray, chest")
    page.get_by_label("Prompt (editable)").press("Tab")
    started = time.perf_counter()
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".results .progress:visible")).to_contain_text("Image 2 of", timeout=PATIENCE)
    waits["own PNG, from Generate to one finished image"] = time.perf_counter() - started
    page.get_by_role("button", name="Stop", exact=True).filter(visible=True).click()
    expect(page.locator(".results .progress:visible")).to_contain_text("topped", timeout=PATIENCE)

    page.get_by_role("tab", name="Segmentation").click()
    page.locator(".drop input[type=file]:visible, .workspace:visible .drop input[type=file]").first.set_input_files(own)
    expect(page.get_by_text("own.png: ").filter(visible=True)).to_be_visible(timeout=PATIENCE)
    page.get_by_label("What to find").fill("lung")
    started = time.perf_counter()
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator(".reading .progress:visible")).to_contain_text("lung", timeout=PATIENCE)
    page.wait_for_function(READ, timeout=PATIENCE)
    waits["own PNG, from Find to its mask"] = time.perf_counter() - started
    page.close()
    return waits


if __name__ == "__main__":
    main()
