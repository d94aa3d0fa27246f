"""HED, the edge detector of EMIT-Diff: the original network, and a small one that was trained to draw alike."""
