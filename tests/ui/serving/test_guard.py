"""What is refused before Gradio sees it, and what browsers are told."""

from __future__ import annotations

import shutil

import httpx
import pytest
from fakes import fake_callables
from gradio_client import Client, handle_file
from starlette.middleware import Middleware

from emitdiff.ui.demo import build_demo, launch_settings
from emitdiff.ui.serving import guard
from emitdiff.ui.serving.addresses import Addresses
from emitdiff.ui.serving.limits import Allowance

ELSEWHERE = {"X-Forwarded-For": "203.0.113.9"}  # of a proxy on this machine, which uvicorn believes


@pytest.fixture(scope="module")
def limited():
    """A page behind a proxy, for which few requests of one address are enough."""
    demo = build_demo(fake_callables())
    addresses = Addresses(("emitdiff.example.org",), ("https://portal.example.org",))
    few = {"middleware": [Middleware(guard.Guard, addresses=addresses, traffic=guard.Traffic(), per_minute=6)]}
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **{**launch_settings(), "app_kwargs": few})
    yield url
    demo.close()


@pytest.mark.parametrize(
    "path", ["", "config", "gradio_api/info", "gradio_api/queue/join", "gradio_api/mcp/", "health"]
)
def test_a_name_that_was_bent_to_this_address_gets_nothing(served, path):
    """DNS rebinding: a foreign page asks in its own name, which resolves to us."""
    for how in (httpx.get, httpx.post):
        answer = how(f"{served}{path}", headers={"Host": "evil.example:7860"})
        assert answer.status_code == 403 and "evil.example" in answer.json()["detail"]


def test_a_foreign_page_can_neither_upload_nor_ask(served, example):
    before = httpx.post(f"{served}gradio_api/upload", files={"files": example.image.read_bytes()})
    assert before.status_code == 200
    for origin in ("https://evil.example", "null"):
        answer = httpx.post(
            f"{served}gradio_api/upload", files={"files": example.image.read_bytes()}, headers={"Origin": origin}
        )
        assert answer.status_code == 403 and "may not ask" in answer.json()["detail"]
        answer = httpx.get(f"{served}config", headers={"Origin": origin})
        assert answer.status_code == 403


def test_a_page_that_was_named_may_ask(limited):
    names = {"Host": "emitdiff.example.org", "Origin": "https://portal.example.org"}
    answer = httpx.get(f"{limited}config", headers=names)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://portal.example.org"
    assert "frame-ancestors 'self' https://portal.example.org" in answer.headers["Content-Security-Policy"]


def test_browsers_are_told_what_the_page_may_do(served, client, example):
    headers = httpx.get(served).headers
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "same-origin"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in policy and "object-src 'none'" in policy and "http" not in policy
    assert "X-Frame-Options" not in headers, "which knows no list, and would keep Spaces from showing the page"
    stored = httpx.post(f"{served}gradio_api/upload", files={"files": ("a.svg", b"<svg onload='alert(1)'/>")}).json()[0]
    headers = httpx.get(f"{served}gradio_api/file={stored}").headers
    assert headers["Cache-Control"] == "private, no-store"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy, "a file runs no script, whoever made it"


def test_too_many_requests_of_one_address_are_refused_with_the_time_to_wait(limited):
    asked = [httpx.post(f"{limited}gradio_api/queue/join", json={}, headers=ELSEWHERE) for _ in range(5)]
    refused = [answer for answer in asked if answer.status_code == 429]
    assert len(refused) == 2, [answer.status_code for answer in asked]
    assert int(refused[0].headers["Retry-After"]) <= 10 and "try again in" in refused[0].json()["detail"]
    other = httpx.post(f"{limited}gradio_api/queue/join", json={}, headers={"X-Forwarded-For": "203.0.113.10"})
    assert other.status_code != 429
    mine = [httpx.post(f"{limited}gradio_api/queue/join", json={}) for _ in range(9)]
    assert all(answer.status_code != 429 for answer in mine), "of this machine they are not counted"


def test_a_refusal_tells_programs_what_to_do(limited, example):
    client = Client(limited, verbose=False, headers={"X-Forwarded-For": "203.0.113.20"})
    with pytest.raises(httpx.HTTPStatusError, match="429"):
        for _ in range(9):
            client.predict(handle_file(str(example.image)), "lung", api_name="/segment")


@pytest.mark.parametrize("announced", [True, False])
def test_a_request_that_is_no_upload_is_short(served, announced):
    body = b'{"data": ["' + b"x" * guard.MAX_BODY + b'"]}'
    sent = body if announced else iter([body[:1000], body[1000:]])
    answer = httpx.post(f"{served}gradio_api/call/models", content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_uploads_leave_room_on_the_disk(served, example, monkeypatch):
    size = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda place: size._replace(free=guard.MIN_FREE + 10))
    answer = httpx.post(f"{served}gradio_api/upload", files={"files": example.image.read_bytes()})
    assert answer.status_code == 507 and "no room" in answer.json()["detail"]


def test_one_address_uploads_only_so_much(served, monkeypatch):
    monkeypatch.setattr(guard, "ASSUMED_UPLOAD", 2**31)
    sent = [
        httpx.post(f"{served}gradio_api/upload", content=iter([b"x"]), headers=ELSEWHERE).status_code for _ in range(3)
    ]
    assert sent[-1] == 429 and 429 not in sent[:2]


def test_allowances_fill_up_again():
    now = [0.0]
    allowance = Allowance(60, 3, lambda: now[0])
    assert [allowance.take("a") for _ in range(4)] == [0, 0, 0, 1] and allowance.take("b") == 0
    now[0] = 1.0
    assert allowance.take("a") == 0 and allowance.take("a") == 1
    assert Allowance(60, 3).take("a", 1000) == 0, "whoever has all of it may ask for more than that, once"
