"""Every tab, light and dark, looked through by axe-core: nothing serious may stand between a user and the page."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

SERIOUS = ("serious", "critical")


def violations(page) -> list[str]:
    """What axe finds that is serious: "rule: what it is, the element"."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:160]}"
        for rule in found
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


def unfold(page) -> None:
    """Opens what is folded in the tab shown."""
    for _ in range(20):
        folded = page.locator("button.label-wrap:not(.open):visible")
        if not folded.count():
            return
        folded.first.click()
        page.wait_for_timeout(150)


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_nothing_serious_stands_in_the_way(page, address, theme, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address}/?__theme={theme}")
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_visible(timeout=60_000)
    tabs = page.get_by_role("tablist").first.get_by_role("tab")
    found = []
    for name in [tab.inner_text() for tab in tabs.all()]:
        page.get_by_role("tab", name=name, exact=True).click()
        page.wait_for_timeout(500)
        if (cards := page.locator(".cards button:visible")).count():
            cards.first.click()
        unfold(page)
        # Gradio's editor says "select the draw tool to start" for a moment, while it builds its canvas.
        found += [f"{name}: {line}" for line in violations(page) if "select the draw tool" not in line]
    assert not found, "\n".join(found)
