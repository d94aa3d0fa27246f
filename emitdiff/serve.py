"""The command `serve`: the application in the browser. It joins what computes with the page, which know each other
only through plain functions."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from emitdiff.commands.arguments import SegmentationWeights, SynthesisWeights
from emitdiff.errors import EmitDiffError, explain
from emitdiff.temporary import AskedToEndError, TemporaryRoot, ending_in_order

FIRST_PORT = 7860  # of those that Gradio tries where none is given
HOST = arg(
    metavar="ADDRESS",
    help="Address to listen on; default: $GRADIO_SERVER_NAME, else 127.0.0.1, for this machine only.",
    help_behavior_hint="",
)
PORT = arg(
    metavar="INT",
    help="Port; default: $GRADIO_SERVER_PORT, else the first free one from 7860.",
    help_behavior_hint="",
)

AUTH = arg(
    metavar="USER:PASSWORD",
    help="Ask for this name and password. Others on this machine can read it in its list of processes: rather give "
    "--auth-file or $EMITDIFF_AUTH, which is also the default.",
    help_behavior_hint="",
)


@dataclass(frozen=True)
class Serve:
    """Serve the application in the browser: open the address it prints. Research use only."""

    host: Annotated[str | None, HOST] = None
    port: Annotated[int | None, PORT] = None
    share: bool = False  # Also open a public link through Gradio's servers.
    auth: Annotated[str | None, AUTH] = None
    auth_file: Path | None = None  # File with a line USER:PASSWORD for everybody who may log in.
    mcp: bool = False  # Also offer the endpoints as tools to language models; needs the extra mcp.
    synthesis_checkpoint: SynthesisWeights = "emitdiff-mini"
    segmentation_checkpoint: SegmentationWeights = "textdiff-mini"

    def run(self) -> int:
        """Serves until somebody asks for its end; then nothing that was sent here stays, and the process is over."""
        if self.mcp and find_spec("mcp") is None:
            raise EmitDiffError("--mcp needs the package mcp, which is not installed: pip install 'emitdiff[mcp]'.")
        logins = self._logins()
        host, port = self.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), self._port()
        try:
            with ending_in_order(), closing(TemporaryRoot()) as root:
                self._serve(host, port, root, logins)
        except AskedToEndError:  # threads that compute are not waited for
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        return 0

    def _serve(self, host: str, port: int | None, root: TemporaryRoot, logins: list[tuple[str, str]] | None) -> None:
        from emitdiff.devices import limit_malloc_arenas

        limit_malloc_arenas()
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        from emitdiff.backend.services import build_callables
        from emitdiff.ui.demo import build_demo, launch_settings
        from emitdiff.ui.serving.clients import current_client
        from emitdiff.ui.serving.metrics import Metrics

        metrics = Metrics()
        calls = build_callables(self.synthesis_checkpoint, self.segmentation_checkpoint, current_client)
        calls = metrics.watch(calls)
        where = {"server_name": host, "server_port": port, "share": self.share}
        try:
            with closing(build_demo(calls)) as demo:
                demo.launch(**where, mcp_server=self.mcp, **launch_settings(calls, root.folder, metrics, logins))
        except (OSError, OverflowError, ValueError) as error:
            taken = f"Port {port or FIRST_PORT} cannot be had at {host}: give another --port, 1 to 65535."
            raise EmitDiffError(explain(error) or (error if isinstance(error, ValueError) else taken)) from error

    def _logins(self) -> list[tuple[str, str]] | None:
        from emitdiff.ui.serving.logins import read_logins

        logins = read_logins(self.auth, self.auth_file)
        if logins and self.mcp:
            raise EmitDiffError(
                "--mcp knows no passwords, so that its tools would stay open: leave out --mcp or --auth."
            )
        return logins

    def _port(self) -> int | None:
        given = os.environ.get("GRADIO_SERVER_PORT")
        if self.port is not None or not given:
            return self.port
        try:
            return int(given)
        except ValueError:
            raise EmitDiffError(
                f"GRADIO_SERVER_PORT is {given!r}, which is no number: set it to a port, or give --port."
            ) from None
