"""`python -m emitdiff COMMAND`."""

import sys

from emitdiff.cli import main

if __name__ == "__main__":
    sys.exit(main())
