"""Data in other layouts, with masks, to a dataset folder."""
