"""The real application on the embedded weights, once for all tests of the folder, and headless Chromium to open it."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from benchmarks.application import application

expect.set_options(timeout=20_000)  # a machine with other work to do needs longer than the 5 seconds of the default
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def address():
    """The real application as a process of its own."""
    with application() as (url, _):
        yield url


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("The browser test needs Chromium on the PATH: install it, for example `apt-get install chromium`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The application, freshly opened; afterwards nothing may have been asked of any other host."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    elsewhere, errors = [], []
    page.on("request", lambda request: elsewhere.append(request.url) if is_elsewhere(request.url, address) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_visible(timeout=60_000)
    yield page
    page.close()
    assert not elsewhere and not errors


def is_elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))
