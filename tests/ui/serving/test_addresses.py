"""Which names and pages the server answers to."""

from __future__ import annotations

import pytest

from emitdiff.ui.serving.addresses import Addresses, embedding_pages, is_local, known_addresses, network_of

AT_HOME = Addresses(("127.0.0.1", "reading-room", "reading-room.local"))
BEHIND_PROXY = Addresses(("emitdiff.example.org", "*.lab.example.org"), ("https://portal.example.org",))


@pytest.mark.parametrize(
    "host",
    ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST", "192.168.1.5:7860", "[fe80::1]", "reading-room:80",
     "reading-room.local", "localhost.:7860"],
)  # fmt: skip
def test_addresses_and_our_own_names_are_answered(host):
    assert AT_HOME.answers_to(host)


@pytest.mark.parametrize(
    "host", ["evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "a b", "1.2.3", "@:1"]
)
def test_a_name_that_anybody_can_bend_is_not_answered(host):
    assert not AT_HOME.answers_to(host)


def test_names_that_are_given_are_answered_with_what_lies_below_a_star():
    assert BEHIND_PROXY.answers_to("emitdiff.example.org") and BEHIND_PROXY.answers_to("a.lab.example.org:443")
    assert not BEHIND_PROXY.answers_to("lab.example.org") and not BEHIND_PROXY.answers_to("evil-lab.example.org")
    assert Addresses(("*",)).answers_to("anything.example")


@pytest.mark.parametrize(
    ("origin", "host", "admitted"),
    [
        ("http://127.0.0.1:7860", "127.0.0.1:7860", True),
        ("http://localhost:3000", "127.0.0.1:7860", True),  # another program of the same machine, as Gradio has it
        ("https://emitdiff.example.org", "emitdiff.example.org", True),
        ("https://emitdiff.example.org", "127.0.0.1:7860", True),  # a proxy that asks in its own name
        ("https://emitdiff.example.org:443", "emitdiff.example.org", True),
        ("https://portal.example.org", "emitdiff.example.org", True),
        ("https://evil.example", "emitdiff.example.org", False),
        ("https://evil.example", "127.0.0.1:7860", False),
        ("http://192.168.1.9", "192.168.1.5:7860", False),
        ("http://localhost:3000", "emitdiff.example.org", False),
        ("null", "127.0.0.1:7860", False),
        ("", "127.0.0.1:7860", False),
    ],
)
def test_only_our_own_pages_and_those_that_were_named_are_admitted(origin, host, admitted):
    assert BEHIND_PROXY.admits(origin, host) is admitted


def test_a_space_answers_to_its_own_name_and_is_shown_on_the_hub(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "user/emitdiff")
    monkeypatch.setenv("SPACE_HOST", "user-emitdiff.hf.space")
    found = known_addresses("0.0.0.0", (), (), share=False)
    assert found.answers_to("user-emitdiff.hf.space") and not found.answers_to("evil.hf.space")
    assert found.admits("https://user-emitdiff.hf.space", "user-emitdiff.hf.space")
    assert not found.admits("https://evil.hf.space", "user-emitdiff.hf.space")
    assert "https://huggingface.co" in embedding_pages(found)


def test_elsewhere_nobody_embeds_the_page_but_who_was_named(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.setenv("EMITDIFF_HOSTS", "a.example, b.example")
    monkeypatch.setenv("EMITDIFF_ORIGINS", "https://b.example/")
    found = known_addresses("127.0.0.1", ("c.example",), ("https://d.example",), share=True)
    assert all(found.answers_to(name) for name in ("a.example", "b.example", "c.example", "x.gradio.live"))
    assert embedding_pages(found) == "'self' https://d.example https://b.example"


def test_clients_are_counted_by_their_network():
    assert network_of("203.0.113.9") == "203.0.113.9" == network_of("::ffff:203.0.113.9")
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2::9") != network_of("2001:db8:1:3::9")
    assert is_local(network_of("::1")) and is_local(network_of("127.0.0.1")) and not is_local("10.0.0.1")
    assert network_of("testclient") == "testclient"
