"""Which names the server answers to, and which pages may ask it: the defence against DNS rebinding and foreign pages.

A page on the internet can have its own name resolve to an address of the local network, and then asks a server there as
if it were its own. Such a request carries that name as its host, so only known names are answered; an address in
numbers is not a name that anybody could bend. Starlette's TrustedHostMiddleware knows no addresses, which a container
cannot list: behind a published port it is asked for by those of its host.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Addresses:
    """`hosts` are names, of which "*.name" stands for all below it and "*" for any; `origins` are "https://name", or
    "*", of pages elsewhere that may ask and embed this one."""

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def answers_to(self, host: str) -> bool:
        """Whether the value of a Host header is an address or one of our names."""
        name = _name(host)
        return bool(name) and (name in LOOPBACK or _is_address(name) or self._is_named(name))

    def admits(self, origin: str, host: str) -> bool:
        """Whether a page from `origin` may send what it sends to `host`: one of this server, or one that was named."""
        if origin in self.origins or "*" in self.origins:
            return True
        page, ours = _without_default_port(urlsplit(origin).netloc), _without_default_port(host)
        name = _name(page)
        if not name or page == ours:
            return bool(name)
        return (name in LOOPBACK and _name(ours) in LOOPBACK) or self._is_named(name)

    def _is_named(self, name: str) -> bool:
        return any(
            pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in self.hosts
        )


def known_addresses(
    listening: str = "", hosts: Iterable[str] = (), origins: Iterable[str] = (), share: bool = True
) -> Addresses:
    """Our own names where we listen at `listening`, with those that whoever runs the server gives, also as
    EMITDIFF_HOSTS and EMITDIFF_ORIGINS, and those of Gradio's and Hugging Face's proxies where these are used."""
    machine = socket.gethostname().lower()
    names = [listening, machine, f"{machine}.local", *hosts, *_listed("EMITDIFF_HOSTS")]
    if share:
        names.append("*.gradio.live")
    if os.environ.get("SPACE_ID"):
        names.append(os.environ.get("SPACE_HOST") or "*.hf.space")
    allowed = (*origins, *_listed("EMITDIFF_ORIGINS"))
    return Addresses(tuple(name.lower() for name in names if name), tuple(one.rstrip("/").lower() for one in allowed))


def embedding_pages(addresses: Addresses) -> str:
    """Who may show this page in a frame, in the words of a Content-Security-Policy."""
    spaces = ("https://huggingface.co", "https://*.hf.space") if os.environ.get("SPACE_ID") else ()
    return " ".join(("'self'", *spaces, *addresses.origins))


def network_of(address: str) -> str:
    """By what a client is counted: of IPv6, its network, for of addresses everybody there has more than enough."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        if not parsed.is_loopback:
            return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def is_local(address: str) -> bool:
    """This machine itself, or a proxy on it that does not say for whom it asks."""
    return address in ("", *LOOPBACK)


def _listed(variable: str) -> list[str]:
    return [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]


def _name(host: str) -> str:
    """The host without its port and brackets, in small letters; "" for what is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_default_port(host: str) -> str:
    return host.lower().removesuffix(":443").removesuffix(":80")
