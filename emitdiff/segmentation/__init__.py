"""TextDiff: an image and a sentence in, a mask out."""
