"""The one exception that reaches people: a sentence they can act on."""


class EmitDiffError(ValueError):
    """What was given, what is expected, what to do. The command line prints it and exits 2; the app shows it."""
