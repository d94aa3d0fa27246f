"""The page with fake callables, once for all tests of the folder."""

from __future__ import annotations

import pytest
from fakes import fake_callables
from gradio_client import Client

from emitdiff.ui.demo import build_demo, launch_settings


@pytest.fixture(scope="session")
def served():
    """The address of a page whose callables are fakes."""
    demo = build_demo(fake_callables())
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_settings())
    yield url
    demo.close()


@pytest.fixture(scope="session")
def client(served):
    return Client(served, verbose=False, httpx_kwargs={"timeout": 120})  # the machine may be busy


@pytest.fixture(scope="session")
def example():
    from emitdiff.ui.examples import read_examples

    return read_examples()[0]
