"""EMIT-Diff's downstream study: what a segmenter gains from painted images, beside classical augmentation."""
