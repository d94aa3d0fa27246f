"""The verbs of the command line, a frozen dataclass each."""
