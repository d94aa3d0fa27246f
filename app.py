"""The application in the browser, up before any weights are loaded: open the address it prints. Research use only.

Takes the options of `python -m emitdiff serve`.
"""

import sys

from emitdiff.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
