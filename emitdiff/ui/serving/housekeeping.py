"""Files that nobody will ask for again go by their age, whoever made them.

Gradio removes old files of its cache that it knows of. It does not know of an upload that was cut off, nor of what
lies beside its cache; and answers, heads and datasets would go only once somebody makes the next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import gradio as gr
from gradio.routes import App
from gradio.utils import get_upload_folder

from emitdiff.ui.archive import remove_old_answers
from emitdiff.ui.source import SESSION_SECONDS

log = logging.getLogger(__name__)
SWEEP_SECONDS = 300  # between two looks


def housekeeping(tidy: Callable[[], None], own: Path | None) -> Callable[[App], AbstractAsyncContextManager[None]]:
    """A lifespan during which old files are looked for: those of the page, in Gradio's cache where that lies in our
    `own` folder, and those that `tidy` removes."""

    def sweep(blocks: gr.Blocks) -> None:
        cache = Path(get_upload_folder())
        if own is not None and cache.is_relative_to(own):
            kept = {file for block in blocks.blocks.values() for file in getattr(block, "keep_in_cache", ())}
            remove_old_files(cache, kept, time.time() - SESSION_SECONDS)
        remove_old_answers()
        tidy()

    async def look_again(app: App) -> None:
        while True:
            try:
                await asyncio.to_thread(sweep, app.get_blocks())
            except Exception:
                log.exception("old files could not be removed")
            await asyncio.sleep(SWEEP_SECONDS)

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        looking = asyncio.create_task(look_again(app))
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    return lifespan


def remove_old_files(folder: Path, kept: Collection[str], before: float) -> None:
    """Files below `folder` that nobody wrote or touched since `before` go, but for those `kept`; empty folders too."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder before the folder
        with suppress(OSError):  # it went meanwhile, or came
            found = path.lstat()
            if path.is_dir():
                if max(found.st_mtime, found.st_ctime) < before:
                    path.rmdir()
            elif str(path) not in kept and max(found.st_mtime, found.st_ctime) < before:
                path.unlink()
