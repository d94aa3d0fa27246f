"""The exception whose message is shown to users."""


class EmitDiffError(ValueError):
    """States what was given, what is expected and what to do. The command line prints it and exits 2; the app shows
    it."""
