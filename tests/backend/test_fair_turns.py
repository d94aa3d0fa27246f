"""With the embedded weights: whoever asks for one image waits for a step of another's long work, not for its end."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from benchmarks.load import draw_dataset
from emitdiff.backend import pipelines, services
from emitdiff.backend.zipped_datasets import MAX_QUESTIONS
from emitdiff.errors import EmitDiffError
from emitdiff.synthesis_settings import SynthesisSettings
from emitdiff.ui.examples import read_examples
from emitdiff.ui.interface import EvaluateRequest, FewShotRequest, SynthesisRequest

IMAGES = 6


@pytest.fixture(scope="module")
def calls():
    found = services.build_callables("emitdiff-mini", "textdiff-mini")
    found.prepare()
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("drawn"), IMAGES)


@pytest.fixture
def picture(calls):
    card = read_examples()[0]
    return calls.read_scan(card.image).image(0), calls.read_mask(card.mask, None, 0)


class LongWork:
    """Goes through the steps of `name` in a thread of its own, a client of its own; `done` are finished."""

    def __init__(self, name, *given):
        self.done, self.error, self.stop = 0, None, threading.Event()
        steps = long_work(name, *given, self.stop.is_set)
        self.thread = threading.Thread(target=self._work, args=(steps,), daemon=True)
        self.thread.start()
        while self.done < 2 and self.thread.is_alive():  # the first may have loaded something
            time.sleep(0.001)

    def _work(self, steps):
        try:
            for _ in steps:
                self.done += 1
                if self.stop.is_set():
                    steps.close()
                    break
        except Exception as error:
            self.error = error

    def end(self):
        self.stop.set()
        self.thread.join(120)
        assert self.error is None and not self.thread.is_alive()


def long_work(name, calls, archive, picture, stopped=lambda: False):
    if name == "evaluate":
        return calls.evaluate(archive, EvaluateRequest("textdiff-mini"))
    if name == "teach":
        return calls.teach([(*picture, "a.png")], FewShotRequest("it", "", "", seconds=300), stopped)
    settings = SynthesisSettings("CT, abdomen", num_images=4, num_inference_steps=8, seed=1)
    return calls.synthesize(*picture, SynthesisRequest(settings, "emitdiff-mini"), stopped)


@pytest.mark.parametrize("name", ["evaluate", "teach", "synthesize"])
def test_one_image_waits_for_steps_of_anothers_work_and_not_for_its_end(name, calls, archive, picture):
    other = np.roll(picture[0], 7, axis=0) + np.uint8(len(name))  # that nobody asked about
    work = LongWork(name, calls, archive, picture)
    before, asked = work.done, time.monotonic()
    calls.segment(other, "liver", 0.5, "textdiff-mini")
    waited, steps = time.monotonic() - asked, work.done - before
    assert work.thread.is_alive(), "the image was answered before the end"
    work.end()
    print(f"{name}: waited {waited:.2f} s and for {steps} steps of the other")
    # One turn to look at the image and one for the question, each behind at most one of the other's; one is under way.
    assert steps <= 4


def test_two_who_paint_take_turns_between_images(calls, picture):
    work = LongWork("synthesize", calls, None, picture)
    settings = SynthesisSettings("CT, abdomen", num_images=1, num_inference_steps=2, seed=5)
    request = SynthesisRequest(settings, "emitdiff-mini")
    (alone,) = [one for one in calls.synthesize(*picture, request, lambda: False) if hasattr(one, "image")]
    assert work.thread.is_alive(), "painted before all images of the other"
    work.end()
    (again,) = [one for one in calls.synthesize(*picture, request, lambda: False) if hasattr(one, "image")]
    np.testing.assert_array_equal(alone.image, again.image)


def test_a_training_is_the_same_while_others_use_the_device(calls, picture):
    def head(busy):
        from emitdiff.backend.teaching import dataset_from_examples
        from emitdiff.segmentation.few_shot.recipe import Recipe
        from emitdiff.segmentation.few_shot.training import TrainFewShot, train_few_shot

        samples, info = dataset_from_examples([(*picture, "a.png")], "it", "", "")
        pipeline, recipe = pipelines.segmenter("textdiff-mini"), Recipe(views=4, steps=6)
        for update in train_few_shot(pipeline, samples, info, TrainFewShot(600), recipe=recipe):  # noqa: B007
            if busy:
                import torch

                torch.rand(5)
                list(train_few_shot(pipeline, samples, info, TrainFewShot(600, seed=3), None, recipe, lambda: True))
        return update.head.head.state_dict()

    alone, beside = head(False), head(True)
    assert all((alone[name] == beside[name]).all() for name in alone)


def test_an_error_within_a_turn_gives_it_back(calls, picture, monkeypatch):
    pipeline = pipelines.segmenter("textdiff-mini")
    monkeypatch.setattr(pipeline, "_predict", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calls.segment(picture[0], "liver", 0.5, "textdiff-mini")
    painter = pipelines.synthesizer("emitdiff-mini")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(painter, "_sample", lambda *given: 1 / 0)
        list(long_work("synthesize", calls, None, picture))
    monkeypatch.undo()
    assert calls.segment(picture[0], "liver", 0.5, "textdiff-mini").mask.shape == picture[1].shape
    assert not pipelines.device._taken and not painter._images._taken


def test_an_evaluation_that_is_left_ends_between_two_questions(calls, archive, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pipeline, asked = pipelines.segmenter("textdiff-mini"), []
    answer = pipeline._answer
    monkeypatch.setattr(pipeline, "_answer", lambda *given: asked.append(1) or answer(*given))
    with closing(calls.evaluate(archive, EvaluateRequest("textdiff-mini"))) as steps:
        assert next(steps) is None and next(steps) is None
    assert len(asked) == 2 and not list(tmp_path.iterdir())


def test_an_evaluation_has_only_so_many_questions(calls, archive, monkeypatch):
    from emitdiff.backend import zipped_datasets

    monkeypatch.setattr(zipped_datasets, "MAX_QUESTIONS", IMAGES)
    *steps, found = calls.evaluate(archive, EvaluateRequest("textdiff-mini"))
    assert steps == [None] * IMAGES and found["n"] == IMAGES
    words = (
        rf"{IMAGES} images, 1 target and 3 texts are {3 * IMAGES} questions; the limit here is {IMAGES}: .*at most 2"
    )
    with pytest.raises(EmitDiffError, match=words):
        next(calls.evaluate(archive, EvaluateRequest("textdiff-mini", text="all")))
    assert MAX_QUESTIONS == 2000
