"""The ControlNet of a checkpoint trained on a user's own images."""
