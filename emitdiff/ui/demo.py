"""The application: a header that always says what is running, one tab for each task, endpoints for programs."""

from __future__ import annotations

import logging
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from emitdiff.ui.comparison.tab import ComparisonTab
from emitdiff.ui.dataset.tab import DatasetTab
from emitdiff.ui.events import QUIET
from emitdiff.ui.examples import read_examples
from emitdiff.ui.interface import HEAD_SUFFIX, Callables, ModelInfo
from emitdiff.ui.programs.endpoints import Endpoints
from emitdiff.ui.segmentation.tab import SegmentationTab
from emitdiff.ui.serving.addresses import known_addresses
from emitdiff.ui.serving.guard import PER_MINUTE, Guard
from emitdiff.ui.serving.housekeeping import housekeeping
from emitdiff.ui.serving.logins import Logins
from emitdiff.ui.serving.metrics import Metrics, status_routes
from emitdiff.ui.source import SESSION_SECONDS
from emitdiff.ui.synthesis.tab import SynthesisTab
from emitdiff.ui.theme import CSS, build_theme
from emitdiff.ui.tooltips import tell

log = logging.getLogger(__name__)
NOTICE = "Research use only. Not a medical device."
KEPT = (
    "Images that you send are kept on this server for four hours, datasets and few-shot heads for a day, and nothing "
    "after it ends."
)
# Gradio names every tile "Thumbnail 1 of 6"; a screen reader should hear what the card shows. And it names the place of
# a picture that is not there yet without saying that it is one, so that the name is not read.
NAME_CARDS = """() => {
  const name = () => {
    document.querySelectorAll(".cards button:has(img)").forEach(
      card => card.setAttribute("aria-label", "Example: " + card.querySelector("img").alt));
    document.querySelectorAll(".empty[aria-label]:not([role])").forEach(place => place.setAttribute("role", "img"));
  };
  name();
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
}"""


def build_demo(calls: Callables) -> gr.Blocks:
    """The whole page from plain functions. Launch it with `demo.launch(**launch_settings())`."""
    cards = read_examples()
    kept = (600, SESSION_SECONDS)  # files go with the results that show them, and not before
    with gr.Blocks(title="EmitDiff", analytics_enabled=False, fill_width=True, delete_cache=kept) as demo:
        Endpoints(calls)  # first, for an event of a tab may be called like one of them
        models = {model.name: model for model in calls.models()}
        device = gr.State("")
        status = gr.HTML(
            header(models, calls.synthesis_checkpoint, calls.segmentation_checkpoint, ""), elem_classes="status"
        )
        with gr.Tabs(elem_classes="tabs") as tabs:
            with gr.Tab("Synthesis", id="synthesis"):
                synthesis = SynthesisTab(calls, cards)
            with gr.Tab("Segmentation", id="segmentation"):
                segmentation = SegmentationTab(calls, cards)
                segmentation.connect_synthesis(synthesis.results, tabs)
            with gr.Tab("Comparison", id="comparison"):
                comparison = ComparisonTab(calls, cards)
            with gr.Tab("Dataset", id="dataset") as dataset_tab:
                dataset = DatasetTab(calls)
                comparison.connect_synthesis(synthesis.input.given, synthesis.form)
        chosen = [synthesis.checkpoint, segmentation.checkpoint, device]
        refresh = lambda *names: header({model.name: model for model in calls.models()}, *names)  # noqa: E731
        demo.load(calls.describe_device, outputs=device, **QUIET).then(refresh, chosen, status, **QUIET).then(
            lambda: prepare(calls), **QUIET
        )
        demo.load(None, js=NAME_CARDS, api_visibility="private")
        gr.on([synthesis.checkpoint.change, segmentation.checkpoint.change], refresh, chosen, status, **QUIET)
        synthesis.outlive(demo)
        demo.unload(segmentation.runs.cancellation.end)
        demo.unload(segmentation.teaching.cancellation.end)
        comparison.persist(demo)
        synthesis.input.persist(demo)
        segmentation.persist(demo)
        demo.unload(comparison.cancellation.end)
        dataset.connect(dataset_tab)
        tell(demo)
    return demo.queue(max_size=32, default_concurrency_limit=4, api_open=False)


def launch_settings(
    calls: Callables | None = None,
    own_folder: Path | None = None,
    metrics: Metrics | None = None,
    logins: Logins | None = None,
) -> dict[str, Any]:
    """Arguments of `launch` that belong to this application on every host: its look, its limits, no tracking.

    Old files of `calls` are removed while it runs, and those of Gradio where its cache lies in `own_folder`. `metrics`
    are told at /metrics. With `logins` only these get in; /health stays open.
    """
    metrics = metrics or Metrics()
    guarded: dict[str, Any] = {"addresses": known_addresses(), "traffic": metrics.traffic, "per_minute": PER_MINUTE}
    return {
        "app_kwargs": {
            "middleware": [Middleware(Guard, **guarded)],
            "routes": status_routes(calls, metrics, logins),
            "lifespan": housekeeping(calls.tidy if calls else lambda: None, own_folder),
        },
        "auth": logins,
        "theme": build_theme(),
        "css_paths": CSS,
        "max_file_size": "512mb",
        "run_history": False,
        "footer_links": ["api", "settings"],
        "ssr_mode": False,
        "enable_monitoring": False,
        # Every gradio_client.Client is a session too, and beyond this many the one used least recently is forgotten,
        # with all it shows. An empty one takes 0.7 MiB and stays until then; what fills memory, scans and results,
        # goes by itself: after SESSION_SECONDS, or an hour after its page was closed.
        "state_session_capacity": 512,
    }


def prepare(calls: Callables) -> None:
    """Ahead of the first run; what fails here fails again there, and is told there to whoever asked for it."""
    try:
        calls.prepare()
    except Exception as error:
        log.warning("preparing failed: %s", error)


def header(models: dict[str, ModelInfo], synthesis: str, segmentation: str, device: str) -> str:
    """HTML of the strip at the top: name, weights in use, device, and the sentence that is always there."""
    parts = [_weights("Synthesis", models.get(synthesis))]
    head = Path(segmentation) if segmentation.endswith(HEAD_SUFFIX) else None  # trained or loaded on this page
    taught = head and f'<span class="part ready"><i>Segmentation</i> {escape(head.stem)} <em>trained here</em></span>'
    parts.append(taught or _weights("Segmentation", models.get(segmentation)))
    where = f'<span class="part"><i>Device</i> {escape(device or "starting")}</span>'
    return (
        f'<header><strong>EmitDiff</strong><span class="notice">{NOTICE}</span>'
        f"<details><summary>{''.join(parts)}{where}</summary>{_table(models)}</details></header>"
    )


def _weights(task: str, model: ModelInfo | None) -> str:
    if model is None:
        return f'<span class="part"><i>{task}</i> no weights</span>'
    ready = "ready" if model.status.startswith("ready") else "waiting"
    return f'<span class="part {ready}"><i>{task}</i> {escape(model.name)} <em>{escape(model.status)}</em></span>'


def _table(models: dict[str, ModelInfo]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(model.name)}</th><td>{escape(model.summary)}</td>"
        f"<td>{escape(model.licence)}</td><td>{escape(model.status)}</td></tr>"
        for model in models.values()
    )
    names = ("Weights", "What they are", "Licence", "State")
    head = "<tr>" + "".join(f"<th scope='col'>{name}</th>" for name in names) + "</tr>"
    return f"<div class='about'><table><thead>{head}</thead><tbody>{rows}</tbody></table><p>{KEPT}</p></div>"
