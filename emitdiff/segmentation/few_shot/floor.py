"""What a few-shot head must reach before it is taken for use without being asked about."""

from __future__ import annotations

MIN_STEPS = 100  # of the 450 that a minute on two cores has room for
MIN_DICE = 0.3  # on the image kept aside: below, most of the mask is wrong


def shortfall(steps: int, dice: float | None) -> str:
    """In a sentence what a head of `steps` training steps falls short of, "" for nothing. `dice` in 0..1 is that of
    the image kept aside, None where there was none."""
    missed = []
    if steps < MIN_STEPS:
        missed.append(f"{steps} training step{'' if steps == 1 else 's'} (at least {MIN_STEPS} are needed)")
    if dice is not None and dice < MIN_DICE:
        missed.append(f"Dice {dice:.2f} on the image kept aside (at least {MIN_DICE:.2f} is needed)")
    return f"Not good enough to rely on: {' and '.join(missed)}." if missed else ""
