"""The dataset folder: what the two halves of the project hand to each other."""
