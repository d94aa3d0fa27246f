"""Training the embedded segmenter: the backbone, the head, and whether a target is there at all."""
