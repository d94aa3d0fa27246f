"""What each control does, in plain words, told beside it; by its label, alike on every tab."""

from __future__ import annotations

import gradio as gr

TIPS = {
    # what is painted
    "Modality": "How the images were taken.",
    "Organ": "What part of the body they show.",
    "Finding": "What is to be seen in it.",
    "Appearance": "How the picture looks: bright, dark, noisy.",
    "Additional words": "Anything else the image should show.",
    "Prompt (editable)": "What is painted. The menus write it, you may change it.",
    "Prompt": "What is painted.",
    "Target (word or sentence)": "What the segmenter marks as the mask.",
    "Images": "Each from its own seed.",
    "First seed": "Same seed, same image. -1 draws a new one.",
    "Seed": "Same seed, same result.",
    "Structure": "How much of your image guides the new one.",
    "Structure: from mask only to all edges": "How much of each image guides the new ones.",
    "Add the mask boundary": "The outline of the mask guides the image too.",
    "Low threshold": "Lower: fainter edges are kept.",
    "High threshold": "Higher: only strong edges begin a line.",
    "Move right (of the width)": "Moves mask and target sideways.",
    "Move down (of the height)": "Moves mask and target up or down.",
    "Scale": "Makes mask and target larger or smaller.",
    "Rotate (degrees, anticlockwise)": "Turns mask and target.",
    "Deform": "Bends the outline smoothly.",
    "Seed of the deformation": "Another seed, another bend.",
    "Preset for the fields below": "Sets steps, guidance and strength together.",
    "Preset": "Sets steps, guidance and strength together.",
    "Steps": "More steps take longer and change less and less.",
    "Steps (0: checkpoint default)": "More steps take longer and change less and less.",
    "Guidance scale": "Higher: closer to the prompt, less varied.",
    "Guidance scale (0: checkpoint default)": "Higher: closer to the prompt, less varied.",
    "Guidance": "Higher: closer to the prompt, less varied.",
    "ControlNet conditioning scale": "Higher: closer to the edges.",
    "ControlNet conditioning scale (0: checkpoint default)": "Higher: closer to the edges.",
    "Control strength": "Higher: closer to the edges.",
    "Negative prompt: what to avoid": "Words the image should not look like.",
    "Weights": "The trained networks that do the work.",
    "Edge detector": "How the edges of the image are found.",
    "Download as": "How the files in the ZIP are laid out.",
    "Class names, in order of id": "What the classes of the mask are called.",
    "Alpha: fraction of real patches": "1 shows the real image alone, 0 the synthetic one.",
    "Patch size, pixels": "Side of the squares that are mixed.",
    # what is found
    "What to find": "A word or a sentence, like “segment the lung”.",
    "Image modality": "Chooses the sentences that fit.",
    "Compare with the result without text": "Shows what the words change.",
    "Class of the reference mask": "Which class the result is compared with.",
    "Mask opacity, %": "How much the colour covers the image.",
    "Threshold": "Lower marks more, higher only what is sure.",
    "Outline": "Draws a line around the mask.",
    "Map": "How sure each pixel is, or how unsure.",
    "Mask file": "The format of the mask you download.",
    "What the masks show": "The name by which the target is found later.",
    "Training time, seconds": "Longer helps most from ten images on.",
    "Slice": "Which picture of the stack is shown and used.",
    "Slices of volumes": "Which pictures of a stack become images.",
    "Time point": "Which of several volumes of the file is shown.",
    "Window (width / level)": "Which values become black and white.",
    "Divider between real and synthetic": "Moves the line between the two.",
    # what is varied and augmented
    "Values across, separated by commas or lines": "One column for each of them, up to six.",
    "Values down, separated by commas or lines": "One row for each of them, up to six.",
    "Compare": "Images painted, or masks found.",
    "Vary across": "What differs from column to column.",
    "Vary down": "What differs from row to row.",
    "Synthetic images per real image": "2 makes a dataset three times as large.",
    "Strength of random mask edits": "0 keeps the masks, 1 moves and bends them much.",
    "Vary appearance words (dark, noisy, ...)": "Adds such a word to each prompt, for variety.",
    "Include the real images": "Off: the result holds synthetic images alone.",
    "Check labels with the segmenter (slow)": "Drops images in which the target is not where its mask is.",
    "Groups to augment": "Which patients are used; held-out ones serve for testing.",
    "Maximum number of source images (0: all)": "Fewer are quicker to try.",
    "Export format": "The layout your training program reads.",
}  # fmt: skip


def tell(demo: gr.Blocks) -> None:
    """Gives every control with a known label its sentence, unless it has one of its own."""
    for block in demo.blocks.values():
        label = str(getattr(block, "label", "")).split(" (the class")[0]
        if hasattr(block, "info") and not block.info and label in TIPS:
            block.info = TIPS[label]
