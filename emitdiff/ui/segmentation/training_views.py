"""HTML of a few-shot training: its steps and its loss."""

from __future__ import annotations

from html import escape

from emitdiff.ui.messages import note

STEPS = ("Add images and masks", "Press Teach", "Follow the training", "Use the head", "Save the head")


def step_list(now: int) -> str:
    """HTML of the steps as a line, those before `now` (from 1) done, `now` marked."""
    items = "".join(
        f'<li class="{"done" if number < now else "now" if number == now else "later"}"'
        f"{' aria-current=step' if number == now else ''}><b>{number}</b> {name}</li>"
        for number, name in enumerate(STEPS, 1)
    )
    return f'<ol class="walk" aria-label="Training steps">{items}</ol>'


def step(number: int, words: str) -> str:
    """HTML of the heading of step `number` with a sentence about it."""
    return f'<h3 class="step"><b>{number}</b> {STEPS[number - 1]}</h3>' + note(words)


def loss_curve(losses: list[float], size: tuple[int, int] = (280, 48)) -> str:
    """HTML with the losses as a line, from the first on the left to the last on the right."""
    width, height = size
    top = max(losses) or 1.0
    across = max(1, len(losses) - 1)
    points = " ".join(
        f"{1 + (width - 2) * k / across:.1f},{height - 1 - (height - 2) * loss / top:.1f}"
        for k, loss in enumerate(losses)
    )
    words = escape(f"Loss from {losses[0]:.2f} to {losses[-1]:.2f}")
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" vector-effect="non-scaling-stroke"/>'
    box = f'viewBox="0 0 {width} {height}" preserveAspectRatio="none"'
    return f'<svg class="curve" role="img" aria-label="{words}" {box}>{line}</svg>'
