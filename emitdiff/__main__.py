"""`python -m emitdiff VERB`."""

import sys

from emitdiff.cli import main

if __name__ == "__main__":
    sys.exit(main())
