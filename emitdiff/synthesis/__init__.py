"""EMIT-Diff: labelled synthetic images from edges, masks and prompts."""
