"""What a text asks for: the taught target that it names, or why none is meant."""
