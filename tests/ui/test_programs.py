"""What docs/app.md says programs and language models can do, done as it says."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio_client
import pytest
from fakes import fake_callables
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from benchmarks.application import application
from emitdiff.datasets.archive import pack_folder
from emitdiff.ui.demo import build_demo, launch_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "app.md"
ENDPOINTS = ["synthesize", "edges", "segment", "teach", "evaluate", "models"]


@pytest.fixture
def files(tmp_path, example, monkeypatch):
    """The files that the page names, in the folder where its lines run."""
    shutil.copy(example.image, tmp_path / "scan.png")
    shutil.copy(example.mask, tmp_path / "mask.png")
    with zipfile.ZipFile(tmp_path / "my-data.zip", "w") as zipped:
        zipped.writestr("my-data/dataset.json", "{}")
    monkeypatch.chdir(tmp_path)


def run_lines(address: str, monkeypatch) -> dict:
    """Runs the page's lines as they are written, but for the address; gives the names they leave behind."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert re.findall(r'api_name="/(\w+)"', " ".join(blocks)) == [*ENDPOINTS[:4], "segment", *ENDPOINTS[4:]]
    assert all(len(block.strip().splitlines()) <= 3 for block in blocks[1:])
    asked, real = [], gradio_client.Client
    monkeypatch.setattr(gradio_client, "Client", lambda url: asked.append(url) or real(address, verbose=False))
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert asked == ["http://127.0.0.1:7860"]
    return names


def test_the_lines_of_the_page_run_as_they_are_written(served, files, monkeypatch, capsys):
    run_lines(served, monkeypatch)
    said = capsys.readouterr().out
    assert "synthetic_scan" in said and "found" in said and "textdiff-mini" in said and "0.9" in said


@pytest.mark.slow
def test_the_lines_of_the_page_run_on_the_embedded_weights(files, dataset_folder, monkeypatch):
    pack_folder(dataset_folder, "my-data.zip", "my-data")
    with application() as (address, _):
        names = run_lines(address, monkeypatch)
    assert [image["seed"] for image in names["manifest"]["images"]] == [0, 1]
    assert names["record"]["targets"] and names["record"]["seconds"] <= 70
    assert names["measures"]["n"] and 0 <= names["measures"]["dice"] <= 1


@pytest.fixture(scope="module")
def tools():
    """The address of a page that language models are offered tools by."""
    demo = build_demo(fake_callables())
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, mcp_server=True, **launch_settings())
    assert "http://127.0.0.1:7860/gradio_api/mcp/" in PAGE.read_text(encoding="utf-8")
    yield url.rstrip("/") + "/gradio_api/mcp/"
    demo.close()


def with_session(address: str, work):
    """What `work(session)` gives, over a connection that a client of the protocol makes."""

    async def connected():
        async with streamable_http_client(address) as (reader, writer, _), ClientSession(reader, writer) as session:
            await session.initialize()
            return await work(session)

    with ThreadPoolExecutor(1) as apart:  # a browser that another test left open keeps a loop running in this thread
        return apart.submit(lambda: asyncio.run(connected())).result()


def test_language_models_are_told_the_same_tools(tools):
    listed = with_session(tools, lambda session: session.list_tools()).tools
    assert [tool.name for tool in listed] == ENDPOINTS
    synthesize = listed[0].inputSchema
    assert synthesize["required"] == ["prompt"] and synthesize["properties"]["seed"]["type"] == "integer"
    assert all("Parameters:" not in tool.description for tool in listed)
    for tool in listed:
        assert all(field["description"] for field in tool.inputSchema["properties"].values())


def test_a_tool_answers_with_pictures_and_figures(tools, example):
    picture = "data:image/png;base64," + base64.b64encode(example.image.read_bytes()).decode()

    async def steps(session):
        async def heard(step, total, message):
            pass

        found = await session.call_tool("segment", {"image": picture, "text": "lung"}, progress_callback=heard)
        empty = await session.call_tool("segment", {"image": picture, "text": " "})
        models = await session.call_tool("models", {})
        wish = {"prompt": "X-ray", "structure": 0}
        painted = [await session.call_tool("synthesize", wish, progress_callback=told) for told in (heard, None)]
        return found, empty, models, painted

    found, empty, models, painted = with_session(tools, steps)
    for one in painted:
        assert not one.isError and "synthetic_text_000_seed0" in one.content[0].text
    assert not found.isError and [part.type for part in found.content] == ["image", "text", "text"]
    assert "'target': 'lung'" in found.content[2].text
    assert empty.isError and "The text is empty: say what to find" in empty.content[0].text
    assert "left lung" in models.content[0].text
