"""Every session is a client of its own, in whichever thread its request is worked on."""

from __future__ import annotations

import threading

from fakes import fake_callables, segment
from gradio_client import Client, handle_file

from emitdiff.ui.demo import build_demo, launch_settings
from emitdiff.ui.serving.clients import current_client


def test_requests_of_one_session_are_one_clients_and_others_are_not(example):
    asked = []

    def asking(*given):
        asked.append(current_client())
        return segment(*given)

    demo = build_demo(fake_callables(segment=asking))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_settings())
    one, other = (Client(url, verbose=False) for _ in range(2))
    for client in (one, other, one):
        client.predict(handle_file(str(example.image)), "lesion", api_name="/segment")
    demo.close()
    assert asked == [one.session_hash, other.session_hash, one.session_hash]


def test_what_nobody_asked_for_is_its_threads_own():
    assert current_client() == threading.get_ident()
