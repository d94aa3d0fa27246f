"""The application in the browser, up before any weights are loaded: open the address it prints. Research use only."""

import argparse
import os
import sys

from emitdiff.devices import limit_malloc_arenas
from emitdiff.errors import explain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), os.environ.get("GRADIO_SERVER_PORT")
    parser.add_argument("--host", default=host, help="address to listen on")
    parser.add_argument("--port", type=int, default=port, help="port; without it, the first free one from 7860")
    parser.add_argument("--share", action="store_true", help="also open a public link through Gradio's servers")
    parser.add_argument("--mcp", action="store_true", help="also offer the endpoints as tools to language models")
    parser.add_argument("--synthesis-checkpoint", default="emitdiff-mini", metavar="NAME", help="weights that generate")
    parser.add_argument("--segmentation-checkpoint", default="textdiff-mini", metavar="NAME", help="weights that find")
    arguments = parser.parse_args()

    limit_malloc_arenas()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from emitdiff.backend.services import build_callables
    from emitdiff.ui.demo import build_demo, launch_settings

    where = {"server_name": arguments.host, "server_port": arguments.port, "share": arguments.share}
    try:
        callables = build_callables(arguments.synthesis_checkpoint, arguments.segmentation_checkpoint)
        build_demo(callables).launch(**where, mcp_server=arguments.mcp, **launch_settings())
    except (OSError, OverflowError, ValueError, MemoryError) as error:
        taken = f"Port {arguments.port or 7860} cannot be had at {arguments.host}: give another --port, 1 to 65535."
        print(explain(error) or (taken if not isinstance(error, ValueError) else error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
