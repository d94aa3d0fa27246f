"""TextDiff as its paper has it, on OpenAI's ADM."""
