"""Makes the stored results of the example cards again: `python docs/stored_examples.py [CHECKPOINT]`, a few minutes."""

from __future__ import annotations

import sys

from emitdiff.backend.services import build_callables
from emitdiff.ui.examples import read_examples
from emitdiff.ui.synthesis.stored import write_stored

if __name__ == "__main__":
    listing = write_stored(build_callables(*sys.argv[1:2] or ["emitdiff-mini"], "textdiff-mini"), read_examples())
    size = sum(file.stat().st_size for file in listing.parent.iterdir())
    print(f"{listing} and its images: {size / 1000:.0f} kB")
