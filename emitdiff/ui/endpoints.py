"""The same work for programs: named, typed endpoints for `gradio_client`, beside the pages and not on them."""

from __future__ import annotations

from typing import Any

import cv2
import gradio as gr
import numpy as np

from emitdiff.errors import EmitDiffError
from emitdiff.ui.archive import answer_folder, build_manifest, save_result
from emitdiff.ui.callables import Callables, SynthesisRequest
from emitdiff.ui.form import check_request, find_preset, sampling_defaults
from emitdiff.ui.messages import sentence
from emitdiff.ui.preview import given


class Endpoints:
    """Adds /synthesize, /edges, /segment and /models to the current Blocks context."""

    def __init__(self, calls: Callables) -> None:
        self.calls = calls
        self.models_by_name = {model.name: model for model in calls.models()}
        with gr.Row(visible=False):
            self._add_synthesize()
            self._add_edges()
            self._add_segment()
            gr.Button().click(self.models, outputs=gr.JSON(label="weights"), api_name="models", queue=False)

    def _add_synthesize(self) -> None:
        arguments = {
            "image": gr.File(label="image"),
            "prompt": gr.Textbox(label="prompt"),
            "mask": gr.File(label="mask"),
            "num_images": gr.Number(1, label="num_images", precision=0),
            "seed": gr.Number(0, label="seed", precision=0),
            "num_inference_steps": gr.Number(None, label="num_inference_steps", precision=0),
            "guidance_scale": gr.Number(None, label="guidance_scale"),
            "controlnet_conditioning_scale": gr.Number(None, label="controlnet_conditioning_scale"),
            "negative_prompt": gr.Textbox("", label="negative_prompt"),
            "slice_number": gr.Number(1, label="slice_number", precision=0),
            "checkpoint": gr.Textbox(self.calls.synthesis_checkpoint, label="checkpoint"),
            "detector": gr.Textbox(None, label="detector"),
            **_structure_inputs(),
        }
        outputs = [gr.File(label="images", file_count="multiple"), gr.JSON(label="manifest")]
        gr.Button().click(
            self.synthesize,
            list(arguments.values()),
            outputs,
            api_name="synthesize",
            concurrency_id="device",
            concurrency_limit=1,
        )

    def _add_edges(self) -> None:
        inputs = [
            gr.File(label="image"),
            gr.File(label="mask"),
            gr.Textbox(None, label="detector"),
            gr.Textbox(self.calls.synthesis_checkpoint, label="checkpoint"),
            *_structure_inputs().values(),
        ]
        gr.Button().click(
            self.edges, inputs, gr.File(label="edges"), api_name="edges", concurrency_id="preview", concurrency_limit=2
        )

    def _add_segment(self) -> None:
        inputs = [
            gr.File(label="image"),
            gr.Textbox(label="text"),
            gr.Number(0.5, label="threshold"),
            gr.Number(1, label="slice_number", precision=0),
            gr.Textbox(self.calls.segmentation_checkpoint, label="checkpoint"),
        ]
        outputs = [gr.File(label="mask"), gr.JSON(label="result")]
        gr.Button().click(
            self.segment, inputs, outputs, api_name="segment", concurrency_id="device", concurrency_limit=1
        )

    def synthesize(
        self,
        image: str | None,
        prompt: str,
        mask: str | None = None,
        num_images: int = 1,
        seed: int = 0,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        controlnet_conditioning_scale: float | None = None,
        negative_prompt: str = "",
        slice_number: int = 1,
        checkpoint: str = "emitdiff-mini",
        detector: str | None = None,
        structure: float = 1.0,
        preset: str = "default",
        move_x: float = 0.0,
        move_y: float = 0.0,
        scale: float = 1.0,
        rotate: float = 0.0,
        deform: float = 0.0,
        edit_seed: int = 0,
    ) -> tuple[list[str], dict]:
        """Synthetic images that keep the edges of `image` and follow `prompt`; image i uses seed + i.

        Parameters:
            image: PNG, JPEG, WebP, TIFF, DICOM, NIfTI or a zip of one DICOM series; empty to paint from the mask alone
            prompt: what to paint, for example "chest X-ray of the lungs"
            mask: class ids at the size of the image; its boundary joins the edges and, edited, it becomes the label
            num_images: 1 to 8
            seed: seed of the first image
            num_inference_steps: denoising steps; leave empty for what suits the weights
            guidance_scale: weight of the words; leave empty for what suits the weights
            controlnet_conditioning_scale: weight of the edges; leave empty for what suits the weights
            negative_prompt: what to avoid
            slice_number: 1 is the first slice of a volume
            checkpoint: name of the weights, see /models
            detector: soft, canny or hed; leave empty for what suits preset and weights
            structure: 1 follows every edge, 0.5 only the mask, 0 is free: then the text alone is enough
            preset: default, paper or released; what is given beside it wins
            move_x: moves mask and edges of the target to the right, a fraction of the width
            move_y: moves them down, a fraction of the height
            scale: scales them, a factor
            rotate: turns them, degrees anticlockwise
            deform: deforms them smoothly, 0 to 1
            edit_seed: seed of the deformation
        Returns:
            PNG files with their settings inside, and a manifest. Research use only, not a medical device.
        """
        try:
            own = {
                "num_inference_steps": num_inference_steps,
                "guidance_scale": guidance_scale,
                "controlnet_conditioning_scale": controlnet_conditioning_scale,
            }
            chosen = find_preset(self.calls.vocabulary.presets, preset)
            defaults = sampling_defaults(self._model(checkpoint, "synthesis"), chosen)
            settings = {name: defaults[name] if value is None else value for name, value in own.items()}
            request = check_request(
                {
                    **settings, "prompt": prompt, "negative_prompt": negative_prompt or "", "num_images": num_images,
                    "seed": seed, "low_threshold": 50, "high_threshold": 120,
                    "detector": self._detector(detector or defaults["detector"]), "checkpoint": checkpoint,
                    "structure": structure, "preset": preset, "move_x": move_x, "move_y": move_y, "scale": scale,
                    "rotate": rotate, "deform": deform, "edit_seed": edit_seed,
                }
            )  # fmt: skip
            pixels, stem, label = self._read(image, mask, slice_number, structure)
            events = self.calls.synthesize(pixels, label, request, lambda: False)
            results = [event for event in events if getattr(event, "image", None) is not None]
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error
        folder = answer_folder()
        paths = [save_result(result, index, stem, folder) for index, result in enumerate(results)]
        return [str(path) for path in paths], build_manifest(results, paths, stem)

    def edges(
        self,
        image: str | None,
        mask: str | None = None,
        detector: str | None = None,
        checkpoint: str = "emitdiff-mini",
        structure: float = 1.0,
        preset: str = "default",
        move_x: float = 0.0,
        move_y: float = 0.0,
        scale: float = 1.0,
        rotate: float = 0.0,
        deform: float = 0.0,
        edit_seed: int = 0,
    ) -> str:
        """The control image that the network would get for `image`, as a PNG file.

        Parameters:
            image: PNG, JPEG, WebP, TIFF, DICOM, NIfTI or a zip of one DICOM series
            mask: class ids at the size of the image; its boundary is joined in
            detector: soft, canny or hed; leave empty for what suits preset and weights
            checkpoint: name of the weights, see /models
            structure: 1 follows every edge, 0.5 only the mask, 0 is free: nothing
            preset: default, paper or released; what is given beside it wins
            move_x: moves mask and edges of the target to the right, a fraction of the width
            move_y: moves them down, a fraction of the height
            scale: scales them, a factor
            rotate: turns them, degrees anticlockwise
            deform: deforms them smoothly, 0 to 1
            edit_seed: seed of the deformation
        """
        try:
            chosen, model = find_preset(self.calls.vocabulary.presets, preset), self._model(checkpoint, "synthesis")
            request = check_request(
                {
                    **vars(SynthesisRequest("edges")), "checkpoint": model.name,
                    "detector": self._detector(detector or sampling_defaults(model, chosen)["detector"]),
                    "structure": structure, "preset": preset, "move_x": move_x, "move_y": move_y, "scale": scale,
                    "rotate": rotate, "deform": deform, "edit_seed": edit_seed,
                }
            )  # fmt: skip
            pixels, stem, label = self._read(image, mask, 1, structure)
            control = self.calls.control_image(pixels, label, request)
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error
        path = answer_folder() / f"{stem}_edges.png"
        cv2.imwrite(str(path), np.ascontiguousarray(control[..., ::-1]))
        return str(path)

    def segment(
        self, image: str, text: str, threshold: float = 0.5, slice_number: int = 1, checkpoint: str = "textdiff-mini"
    ) -> tuple[str, dict]:
        """The mask of what `text` names in `image`, at the size and in the geometry of the file.

        Parameters:
            image: PNG, JPEG, WebP, TIFF, DICOM, NIfTI or a zip of one DICOM series
            text: a sentence or one of the targets listed by /models, for example "left lung"
            threshold: probability from which a pixel belongs to the mask, 0 to 1
            slice_number: 1 is the first slice of a volume
            checkpoint: name of the weights, see /models
        Returns:
            the mask file (1 inside, 0 outside) and what was found. Research use only, not a medical device.
        """
        try:
            if not (text or "").strip():
                raise EmitDiffError("The text is empty: say what to find, for example “lung”.")
            self._model(checkpoint, "segmentation")
            scan = self.calls.read_scan(image)
            output = self.calls.segment(scan.image(int(slice_number) - 1), text.strip(), float(threshold), checkpoint)
            saved = scan.save_mask({int(slice_number) - 1: output.mask}, answer_folder())
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from error
        result = {
            "found": bool(output.found),
            "target": output.target,
            "present": round(output.present, 4),
            "highest_probability": round(float(np.max(output.probability)), 4),
            "fraction_of_image": round(float(np.mean(output.mask > 0)), 6),
            "seconds": round(output.seconds, 3),
            "warnings": list(output.warnings),
        }
        return str(saved), result

    def models(self) -> list[dict]:
        """The weights this application knows: kind, summary, licence, whether they are here, defaults, targets."""
        rows = []
        for model in self.calls.models():
            row: dict[str, Any] = dict(vars(model))
            if model.kind == "segmentation" and model.status.startswith("ready"):
                row["targets"] = list(self.calls.targets(model.name))
            rows.append(row)
        return rows

    def _model(self, name: str, kind: str) -> Any:
        """Only weights of the list are loaded for a caller: a name must not make the server fetch a repository."""
        model = self.models_by_name.get(name)
        if model is None or model.kind != kind:
            known = ", ".join(model.name for model in self.models_by_name.values() if model.kind == kind)
            raise EmitDiffError(f"No {kind} weights are called {name!r} here: give one of {known}.")
        return model

    def _detector(self, name: str) -> str:
        if name not in self.calls.vocabulary.detectors:
            known = ", ".join(self.calls.vocabulary.detectors)
            raise EmitDiffError(f"No edge detector is called {name!r}: give one of {known}.")
        return name

    def _read(
        self, image: str | None, mask: str | None, slice_number: float, structure: float
    ) -> tuple[np.ndarray | None, str, np.ndarray | None]:
        scan = self.calls.read_scan(image) if image else None
        if scan is not None:
            scan.image(int(slice_number) - 1)  # first, for it refuses a slice that is not there
        pixels, label, stem = given(self.calls, scan, slice_number, None, mask, structure)
        return pixels, stem, label


def _structure_inputs() -> dict[str, Any]:
    return {
        "structure": gr.Number(1, label="structure"),
        "preset": gr.Textbox("default", label="preset"),
        "move_x": gr.Number(0, label="move_x"),
        "move_y": gr.Number(0, label="move_y"),
        "scale": gr.Number(1, label="scale"),
        "rotate": gr.Number(0, label="rotate"),
        "deform": gr.Number(0, label="deform"),
        "edit_seed": gr.Number(0, label="edit_seed", precision=0),
    }
