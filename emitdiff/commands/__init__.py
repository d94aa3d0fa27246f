"""The commands of the command line, a frozen dataclass each."""
