"""The ControlNet of a checkpoint taught on a user's own images."""
