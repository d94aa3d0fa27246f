"""What stands between the network and Gradio: who may ask, how much, and what browsers are told about the answers."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emitdiff.ui.serving.addresses import Addresses, embedding_pages, is_local, network_of
from emitdiff.ui.serving.limits import Allowance

MAX_UPLOAD = 512 * 2**20  # bytes of one upload
MAX_BODY = 8 * 2**20  # bytes of any other request
ASSUMED_UPLOAD = 64 * 2**20  # where a request does not say how long it is
MIN_FREE = 2 * 2**30  # bytes that uploads leave on the disk
PER_MINUTE = 300  # requests of one address; a page that is used sends some twenty
MAX_OPEN = 256  # requests of one address at once; a page has two or three
POLICY = "object-src 'none'; base-uri 'self'; frame-ancestors "
# A file that is opened by itself, whoever made it, does nothing but show.
FILE_POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; frame-ancestors "
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Refusal(NamedTuple):
    """`reason` is a word for the metrics, `seconds` how long to wait, 0 where waiting does not help."""

    status: int
    reason: str
    detail: str
    seconds: int = 0


@dataclass
class Traffic:
    """What came in, in numbers alone; shared with the page of metrics."""

    answers: Counter[str] = field(default_factory=Counter)  # by class of status, like "2xx"
    refusals: Counter[str] = field(default_factory=Counter)  # by reason
    uploaded: int = 0  # bytes that were announced
    open: Counter[str] = field(default_factory=Counter)  # requests by address


class Guard:
    """ASGI middleware. Only requests of other machines are counted against the allowances."""

    def __init__(self, app: ASGIApp, addresses: Addresses, traffic: Traffic, per_minute: float) -> None:
        self.app, self.addresses, self.traffic = app, addresses, traffic
        self.uploads = RequestBodyLimitMiddleware(app, MAX_UPLOAD + 2**20)
        self.others = RequestBodyLimitMiddleware(app, MAX_BODY)
        self.requests = Allowance(per_minute, per_minute / 2) if per_minute else None
        self.bytes = Allowance(2**30, 4 * 2**30)
        self.logins = Allowance(10, 10)
        self.embedding = embedding_pages(addresses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the start and end of the server; nothing here speaks WebSocket
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        address = network_of(scope["client"][0] if scope.get("client") else "")
        send = self._with_headers(scope, send)
        if refusal := self._refusal(scope, address):
            self.traffic.refusals[refusal.reason] += 1
            wait = {"Retry-After": str(refusal.seconds)} if refusal.seconds else None
            await JSONResponse({"detail": refusal.detail}, refusal.status, wait)(scope, receive, send)
            return
        self.traffic.open[address] += 1
        try:
            await (self.uploads if _is_upload(scope) else self.others)(scope, receive, send)
        finally:
            self.traffic.open[address] -= 1
            self.traffic.open += Counter()  # without those that have none

    def _refusal(self, scope: Scope, address: str) -> Refusal | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.addresses.answers_to(host):
            said = f"This server does not answer to the name {host[:100]!r}."
            return Refusal(403, "host", f"{said} Whoever runs it can allow it in EMITDIFF_HOSTS.")
        if origin is not None and not self.addresses.admits(origin.lower(), host):
            said = f"Pages from {origin[:100]!r} may not ask this server."
            return Refusal(403, "origin", f"{said} Whoever runs it can allow them in EMITDIFF_ORIGINS.")
        if scope["method"] in ("GET", "HEAD", "OPTIONS") and self.traffic.open[address] < MAX_OPEN:
            return None
        return self._too_much(scope, headers, address)

    def _too_much(self, scope: Scope, headers: Headers, address: str) -> Refusal | None:
        counted = not is_local(address)
        if counted and self.traffic.open[address] >= MAX_OPEN:
            return Refusal(429, "open", f"{MAX_OPEN} requests of yours are open: close some pages.", 10)
        if scope["path"].rstrip("/").endswith("/login") and (seconds := self.logins.take(address)):
            return Refusal(429, "login", f"Too many attempts to log in: try again in {seconds} s.", seconds)
        if counted and self.requests is not None and (seconds := self.requests.take(address)):
            return Refusal(429, "rate", f"Too many requests from your address: try again in {seconds} s.", seconds)
        return self._too_large(headers, address, counted) if _is_upload(scope) else None

    def _too_large(self, headers: Headers, address: str, counted: bool) -> Refusal | None:
        length = headers.get("content-length", "")
        size = int(length) if length.isdecimal() else ASSUMED_UPLOAD
        if shutil.disk_usage(tempfile.gettempdir()).free - size < MIN_FREE:
            return Refusal(507, "space", "The server has no room for this file now: try again in an hour.", 3600)
        if counted and (seconds := self.bytes.take(address, size)):
            return Refusal(429, "bytes", f"Too much was uploaded from your address: try again in {seconds} s.", seconds)
        self.traffic.uploaded += size
        return None

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        is_file = "file=" in scope["path"] or "/file/" in scope["path"]
        policy = (FILE_POLICY if is_file else POLICY) + self.embedding

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.traffic.answers[f"{message['status'] // 100}xx"] += 1
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "Content-Security-Policy": policy})
                if is_file:  # images of somebody: not in the store of a shared browser or of a proxy
                    headers["Cache-Control"] = "private, no-store"
            await send(message)

        return sending


def _is_upload(scope: Scope) -> bool:
    return bool(scope["path"].endswith("/upload")) and scope["method"] == "POST"
