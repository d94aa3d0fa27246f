"""The exception whose message is shown to users."""


class EmitDiffError(ValueError):
    """States what was given, what is expected and what to do. The command line prints it and exits 2; the app shows
    it."""


def first_line(error: BaseException) -> str:
    """What another library's error says, at most 200 characters of its first line, for use in a sentence; its name
    where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
