from __future__ import annotations

import ast
import re
from pathlib import Path

import gradio as gr
import pytest
from fakes import fake_callables
from gradio.state_holder import StateHolder

from emitdiff.ui import demo as page
from emitdiff.ui import theme
from emitdiff.ui.source import SESSION_SECONDS
from emitdiff.ui.tooltips import TIPS

UI = Path(page.__file__).parent


@pytest.fixture(scope="module")
def demo():
    return page.build_demo(fake_callables())


def test_the_header_says_what_runs_and_what_for():
    models = {model.name: model for model in fake_callables().models()}
    html = page.header(models, "emitdiff-mini", "textdiff-mini", "CPU")
    for words in (
        "Research use only. Not a medical device.",
        "emitdiff-mini",
        "textdiff-mini",
        "ready (embedded)",
        "CPU",
        "kept on this server for four hours",
    ):
        assert words in html
    assert "<script" not in page.header(models, "emitdiff-mini", "textdiff-mini", "<script>")
    assert "optic-disc <em>trained here" in page.header(models, "emitdiff-mini", "heads/optic-disc.safetensors", "CPU")


def test_what_computes_runs_side_by_side_and_leaves_threads_for_the_rest(demo):
    limits = {fn.concurrency_id: fn.concurrency_limit for fn in demo.fns.values()}
    heavy = [fn for fn in demo.fns.values() if fn.concurrency_id in ("device", "teaching")]
    assert len(heavy) >= 8 and limits["device"] > 10 and limits["teaching"] > 1
    assert limits["device"] + limits["teaching"] + 10 <= demo.max_threads


def test_every_control_says_what_it_does(demo):
    kinds = (gr.Slider, gr.Dropdown, gr.Number, gr.Textbox, gr.Checkbox, gr.Radio)
    of_endpoints = re.compile("[a-z_]+")
    controls = [
        block for block in demo.blocks.values()
        if isinstance(block, kinds) and block.label and block.container and not of_endpoints.fullmatch(block.label)
    ]  # fmt: skip
    assert len(controls) > 80
    assert {block.label for block in controls if not block.info} == set()
    assert all(len(sentence) <= 60 and sentence.endswith(".") for sentence in TIPS.values())
    labels = {str(block.label).split(" (the class")[0] for block in demo.blocks.values() if isinstance(block, kinds)}
    assert set(TIPS) <= labels | {"Prompt"}, "of a control that is gone"


def test_what_the_host_is_protected_by(demo):
    settings = page.launch_settings()
    assert settings["max_file_size"] and settings["run_history"] is False
    assert demo.delete_cache == (600, SESSION_SECONDS), "files live as long as what shows them"
    assert demo._queue.max_size == 32
    assert demo.analytics_enabled is False


def test_programs_do_not_push_out_what_a_person_has_made(demo, monkeypatch):
    """Each client of theirs is a session to Gradio; and one of them takes memory for good."""
    monkeypatch.setattr("gradio.state_holder.SessionState", lambda blocks: object())
    capacity = page.launch_settings()["state_session_capacity"]
    monkeypatch.setattr(demo, "state_session_capacity", capacity, raising=False)
    monkeypatch.setattr(demo, "state_holder", None, raising=False)
    sessions = StateHolder()
    sessions.set_blocks(demo)
    made = sessions["a user"]
    for number in range(400):
        sessions[f"program {number}"]
    assert sessions["a user"] is made and capacity <= 1000


def test_nothing_on_the_page_comes_from_a_network():
    look = theme.CSS.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", look)
    assert not theme.build_theme()._stylesheets


def imported(file: Path) -> set[str]:
    """Full names of what a file imports anywhere in it, within functions too."""
    package, found = ("emitdiff", "ui", *file.relative_to(UI).parent.parts), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            found |= {".".join(filter(None, (*above, node.module, alias.name))) for alias in node.names}
    return found


def test_the_ui_is_handed_everything():
    settings = ("synthesis_settings", "augmentation_settings", "import_settings")
    ground_floor = ("images", "image_kinds", "provenance", "files", "cells", "errors", "version", *settings)
    known = tuple(f"emitdiff.{name}." for name in (*ground_floor, "ui"))
    files = list(UI.rglob("*.py"))
    assert len(files) > 30, "those of the tabs' folders too"
    for file in files:
        ours = [name for name in imported(file) if name.split(".")[0] == "emitdiff"]
        assert not [name for name in ours if not f"{name}.".startswith(known)], file
