"""The command that serves the page; tests/test_app.py runs it as a process."""

from __future__ import annotations

import pytest
from command_line import run

from emitdiff.errors import EmitDiffError
from emitdiff.serve import Serve


def test_without_the_package_mcp_its_option_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("emitdiff.serve.find_spec", lambda name: None)
    assert run(monkeypatch, "serve", "--mcp") == 2
    assert "pip install 'emitdiff[mcp]'" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "variable", "port"), [(None, "", None), (None, "81", 81), (82, "81", 82)])
def test_the_port_is_the_option_else_the_variable_else_left_to_gradio(monkeypatch, option, variable, port):
    monkeypatch.setenv("GRADIO_SERVER_PORT", variable)
    assert Serve(port=option)._port() == port


def test_a_variable_that_holds_no_port_is_named(monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_PORT", "http")
    with pytest.raises(EmitDiffError, match="GRADIO_SERVER_PORT is 'http'.*--port"):
        Serve()._port()


@pytest.mark.parametrize("given", [[], ["--host", "0.0.0.0", "--port", "8000"]])
def test_host_and_port_reach_gradio_and_what_cannot_be_had_is_said(monkeypatch, capsys, given):
    asked = []

    def launch(demo, **settings):
        asked.append((settings["server_name"], settings["server_port"], settings["mcp_server"]))
        raise OSError("in use")

    for variable in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("gradio.Blocks.launch", launch)
    assert run(monkeypatch, "serve", *given) == 2
    assert asked == [("0.0.0.0", 8000, False) if given else ("127.0.0.1", None, False)]
    assert f"Port {8000 if given else 7860} cannot be had at {asked[0][0]}" in capsys.readouterr().err
