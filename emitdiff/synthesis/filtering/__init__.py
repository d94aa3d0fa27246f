"""Which synthetic images are fit to train on, and a report on all of them."""
