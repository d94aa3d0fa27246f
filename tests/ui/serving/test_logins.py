"""Only those who were given a password get in, and no message tells it."""

from __future__ import annotations

import base64

import fakes
import httpx
import pytest
from command_line import run
from gradio_client import Client, handle_file
from gradio_client.exceptions import AuthenticationError

from emitdiff.ui.demo import build_demo, launch_settings
from emitdiff.ui.serving.logins import VARIABLE, is_login, read_logins

USER, PASSWORD = "reader", "süß & secret: 1"


@pytest.fixture(scope="module")
def closed():
    demo = build_demo(fakes.fake_callables())
    settings = launch_settings(fakes.fake_callables(), logins=[(USER, PASSWORD)])
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **settings)
    yield url
    demo.close()


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()}


def test_programs_are_refused_without_and_served_with_the_password(closed, example):
    for wrong in (None, (USER, "wrong password"), ("other", PASSWORD)):
        with pytest.raises((AuthenticationError, ValueError, httpx.HTTPStatusError)):
            Client(closed, auth=wrong, verbose=False)
    client = Client(closed, auth=(USER, PASSWORD), verbose=False)
    mask, found = client.predict(handle_file(str(example.image)), "lung", api_name="/segment")
    assert found["target"] == "lung" and mask
    assert httpx.get(f"{closed}gradio_api/file={mask}").status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "config"), ("GET", "gradio_api/info"), ("POST", "gradio_api/upload"), ("POST", "gradio_api/queue/join"),
     ("POST", "gradio_api/call/models"), ("POST", "gradio_api/run/models"), ("GET", "gradio_api/queue/data"),
     ("GET", "gradio_api/openapi.json"), ("GET", "metrics")],
)  # fmt: skip
def test_nothing_is_told_without_it(closed, method, path):
    assert httpx.request(method, f"{closed}{path}").status_code == 401


def test_health_stays_open_and_the_numbers_take_the_password(closed):
    assert httpx.get(f"{closed}health").json()["status"] == "ok"
    assert "emitdiff_queue_length" in httpx.get(f"{closed}metrics", headers=basic(PASSWORD)).text
    elsewhere = {"X-Forwarded-For": "203.0.113.40"}
    tried = [httpx.get(f"{closed}metrics", headers=basic(f"guess {k}") | elsewhere).status_code for k in range(12)]
    assert tried == [401] * 10 + [429] * 2


@pytest.mark.parametrize("path", ["login", "login/"])
def test_passwords_are_not_tried_out(closed, path):
    elsewhere = {"X-Forwarded-For": f"203.0.113.{50 + len(path)}"}
    tried = [
        httpx.post(f"{closed}{path}", data={"username": USER, "password": f"guess {k}"}, headers=elsewhere).status_code
        for k in range(12)
    ]
    assert tried == [400] * 10 + [429] * 2


def test_a_login_comes_from_the_option_the_file_or_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_logins(None, None) is None
    assert read_logins("a:long:password", None) == [("a", "long:password")]
    (tmp_path / "users").write_text("a:password1\n\nb:password2\n")
    assert read_logins(None, tmp_path / "users") == [("a", "password1"), ("b", "password2")]
    monkeypatch.setenv(VARIABLE, "c:password3")
    assert read_logins(None, None) == [("c", "password3")] and read_logins("a:password1", None) == [("a", "password1")]


@pytest.mark.parametrize("given", ["hunter2hunter2", ":hunter2hunter2", "a:hunter2", " :hunter2hunter2", ""])
def test_another_form_is_refused_without_telling_the_password(monkeypatch, capsys, tmp_path, given):
    file = tmp_path / "users"
    file.write_text(f"fine:password1\n{given}\n" if given else "")
    for options in (["--auth", given], ["--auth-file", str(file)]):
        assert run(monkeypatch, "serve", *options) == 2
        said = capsys.readouterr().err
        assert "USER:PASSWORD" in said and "hunter2" not in said and "Traceback" not in said


def test_what_contradicts_itself_is_refused(monkeypatch, capsys, tmp_path):
    file = tmp_path / "users"
    file.write_text("a:password1\na:password2\n")
    for options, words in (
        (["--auth", "a:password1", "--auth-file", str(file)], "one of them"),
        (["--auth-file", str(file)], "a user twice"),
        (["--auth-file", str(tmp_path)], "cannot be read"),
        (["--auth", "a:password1", "--mcp"], "leave out --mcp"),
    ):
        assert run(monkeypatch, "serve", *options) == 2
        assert words in capsys.readouterr().err


def test_only_the_basic_scheme_is_a_login():
    known = [("a", "password1"), ("b", "password2")]
    right = base64.b64encode(b"b:password2").decode()
    assert is_login(f"Basic {right}", known)
    assert not any(is_login(header, known) for header in ("", right, f"Bearer {right}", "Basic x", "Basic é"))
