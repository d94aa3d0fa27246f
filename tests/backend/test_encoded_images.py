"""Encoded images: shared by all users, known by their pixels, bounded, made once whoever asks."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from emitdiff.backend import encoded_images, services
from emitdiff.backend.encoded_images import MAX_BYTES, encode
from emitdiff.errors import EmitDiffError

pytestmark = pytest.mark.usefixtures("no_images")


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def looks(tiny_segmenter) -> list:
    """Grows by one with every pass through the backbone."""
    passes = []
    tiny_segmenter.features.unet.conv_in.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_two_users_with_two_images_do_not_encode_them_again(tiny_segmenter, looks, monkeypatch):
    monkeypatch.setattr(services, "segmenter", lambda checkpoint: tiny_segmenter)
    alone = [tiny_segmenter(picture(seed), text) for text in ("liver", "left lung") for seed in (0, 1)]
    looks.clear()
    asked = [(picture(seed), text) for text in ("liver", "left lung") for seed in (0, 1)]
    found = [services.segment(image, text, 0.5, "any") for image, text in asked]
    assert len(looks) == 2
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.probability, other.probability)
        assert one.seconds > 0


def test_an_image_is_known_by_its_pixels_and_shape(tiny_segmenter, looks):
    image = picture(0)
    first = encode(tiny_segmenter, image)
    assert encode(tiny_segmenter, image.copy()) is first and len(looks) == 1
    assert encode(tiny_segmenter, np.repeat(image, 2, 1)[:, ::2]) is first, "a view of other memory"
    assert encode(tiny_segmenter, image.reshape(32, 128, 3)).size == (32, 128)
    image[0, 0, 0] ^= 1  # in place: what was kept is not taken for it
    assert encode(tiny_segmenter, image) is not first and len(looks) == 3


def test_what_is_no_image_is_said_whatever_is_kept(tiny_segmenter):
    encode(tiny_segmenter, picture(0))
    for wrong in (picture(0).view(np.int8), None):
        with pytest.raises(EmitDiffError, match="give uint8"):
            encode(tiny_segmenter, wrong)


def test_of_many_images_the_last_ones_used_are_kept(tiny_segmenter, looks, monkeypatch):
    one = tiny_segmenter.encode(picture(0)).nbytes
    monkeypatch.setattr(encode, "cache", type(encode.cache)(3 * one, getsizeof=encode.cache.getsizeof))
    for seed in (0, 1, 2, 0, 3):
        encode(tiny_segmenter, picture(seed))
    assert encode.cache.currsize == 3 * one
    looks.clear()
    for seed in (0, 2, 3):
        encode(tiny_segmenter, picture(seed))
    assert not looks
    encode(tiny_segmenter, picture(1))
    assert len(looks) == 1


def test_the_bound_is_one_of_memory(tiny_segmenter):
    kept = encode(tiny_segmenter, picture(0))
    assert encode.cache.currsize == kept.nbytes and encode.cache.maxsize == MAX_BYTES


def test_threads_that_ask_for_one_image_have_it_encoded_once(tiny_segmenter, looks):
    together = threading.Barrier(4)

    def ask(index: int):
        together.wait(10)
        return encode(tiny_segmenter, picture(index % 2))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len({id(encoded) for encoded in found}) == len(looks) == 2


def test_weights_that_are_loaded_again_encode_again_and_old_ones_are_let_go(tiny_segmenter, looks):
    from emitdiff.segmentation.pipeline import SegmentationPipeline

    parts = (tiny_segmenter.features, tiny_segmenter.text, tiny_segmenter.head, ("liver",))
    loaded = SegmentationPipeline(*parts, resolution=64)
    first = encode(loaded, picture(0))
    again = SegmentationPipeline(*parts, resolution=64)
    assert again.segment(encode(again, picture(0)), "liver").mask.shape == (64, 64)
    assert encode(again, picture(0)) is not first and len(looks) == 2
    gone = weakref.ref(loaded)
    del loaded
    gc.collect()
    assert gone() is None and encoded_images.encode.cache.currsize == 2 * first.nbytes
