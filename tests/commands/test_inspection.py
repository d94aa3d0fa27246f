"""A picture tells where it comes from, and comes out the same again."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emitdiff import cli
from emitdiff.checksums import fingerprint
from emitdiff.provenance import DIGITAL_SOURCE_TYPE, NAMESPACES, read_origin, save_synthetic_png

SMALL = {"area": 64 * 64, "multiple": 8, "defaults": {"num_inference_steps": 2}}


@pytest.fixture(scope="module")
def weights(tiny_synthesis_folder, tmp_path_factory) -> Path:
    folder = shutil.copytree(tiny_synthesis_folder, tmp_path_factory.mktemp("weights") / "tiny")
    (folder / "emitdiff.json").write_text(json.dumps(SMALL))
    return folder


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def painted(weights, disc_files, tmp_path) -> Path:
    """One image painted from an image and an edited mask."""
    verb = ("synthesize", disc_files[0], "--mask", disc_files[1], "--prompt", 'CT, "liver" <&>', "-n", 1, "--seed", 7)
    assert run(*verb, "--move", 0.1, 0, "--checkpoint", weights, "-o", tmp_path / "made") == 0
    return next((tmp_path / "made").glob("synthetic_*.png"))


def test_a_synthetic_picture_says_weights_settings_and_source(painted, weights, capsys):
    capsys.readouterr()
    assert run("inspect", painted) == 0
    said = capsys.readouterr().out
    assert f"synthetic, painted by emitdiff with {weights}" in said and fingerprint(weights) in said
    assert "seed: 7" in said and "source: disc" in said and "trainedAlgorithmicMedia" in said and "device cpu" in said
    assert run("inspect", painted, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["synthetic"] and facts["settings"]["seed"] == 7 and not facts["c2pa"]


def test_it_is_painted_again_bit_for_bit(painted, disc_files, tmp_path, capsys):
    sources = ("--image", disc_files[0], "--mask", disc_files[1])
    assert run("inspect", painted, "--repaint", tmp_path / "again", *sources) == 0
    assert "is the same, bit for bit" in capsys.readouterr().out
    again = tmp_path / "again" / painted.name
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(painted)))


def test_an_image_painted_from_text_alone_needs_no_source(weights, tmp_path, capsys):
    verb = ("synthesize", "--prompt", "CT", "--structure", 0, "-n", 1, "--size", "64x96", "--checkpoint", weights)
    assert run(*verb, "-o", tmp_path / "made") == 0
    assert run("inspect", *(tmp_path / "made").glob("*.png"), "--repaint", tmp_path / "again") == 0
    assert "bit for bit" in capsys.readouterr().out


def test_an_augmented_image_is_found_in_its_dataset(weights, dataset_folder, tmp_path, capsys):
    assert run("augment", dataset_folder, tmp_path / "out", "--limit", 1, "--edit", 0.5, "--checkpoint", weights) == 0
    (image,) = (tmp_path / "out" / "images").glob("*.png")
    assert run("inspect", image, "--repaint", tmp_path / "again", "--dataset", dataset_folder) == 0
    assert "bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "give the image it was painted from as --image"),
        ({"--image": "other"}, "This is not the image it was painted from: its pixels are others"),
        ({"--image": "right"}, "give its mask as --mask"),
        ({"--image": "right", "--mask": "other"}, "This is not its mask"),
    ],
)
def test_another_source_is_refused_before_weights_are_loaded(painted, disc_files, tmp_path, capsys, change, words):
    image, mask = (np.asarray(Image.open(path)) for path in disc_files)
    Image.fromarray(image ^ 1).save(tmp_path / "image.png")
    Image.fromarray(255 - mask).save(tmp_path / "mask.png")
    right = dict(zip(("--image", "--mask"), disc_files, strict=True))
    other = {"--image": tmp_path / "image.png", "--mask": tmp_path / "mask.png"}
    given = [part for name, kind in change.items() for part in (name, (right if kind == "right" else other)[name])]
    capsys.readouterr()
    assert run("inspect", painted, "--repaint", tmp_path / "again", *given) == 2
    said = capsys.readouterr().err
    assert words in said and "Loading" not in said and not (tmp_path / "again").exists()


def test_other_weights_and_a_changed_picture_are_told(painted, weights, disc_files, tmp_path, capsys):
    sources = ("--image", disc_files[0], "--mask", disc_files[1])
    pixels = np.array(Image.open(painted))
    pixels[0, 0] ^= 255
    record = read_origin(painted).settings
    changed = save_synthetic_png(pixels, tmp_path / "synthetic_changed.png", record)
    assert run("inspect", changed, "--repaint", tmp_path / "again", *sources) == 1
    answer = capsys.readouterr()
    assert "1 of 4,096 pixels differ, by at most " in answer.err and "is not the same" in answer.out
    odd = save_synthetic_png(pixels, tmp_path / "synthetic_odd.png", {**record, "weights_sha256": "0" * 64})
    assert run("inspect", odd, "--repaint", tmp_path / "again", *sources) == 2
    assert "was painted with weights 000000000000..." in capsys.readouterr().err


def test_a_real_picture_says_nothing_and_other_programs_are_named(disc_files, tmp_path, capsys):
    assert run("inspect", disc_files[0]) == 1
    assert "does not say that it is synthetic. That does not prove that it is real." in capsys.readouterr().out
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/'
        b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>"
        b"<Iptc4xmpExt:AISystemUsed>Painter &amp; Co</Iptc4xmpExt:AISystemUsed></x:xmpmeta>"
    )
    Image.open(disc_files[0]).convert("RGB").save(tmp_path / "other.webp", xmp=packet)
    assert run("inspect", tmp_path / "other.webp") == 0
    assert "(compositeWithTrainedAlgorithmicMedia), made by Painter & Co." in capsys.readouterr().out
    assert run("inspect", tmp_path / "other.webp", "--repaint", tmp_path / "again") == 2
    with (tmp_path / "other.webp").open("ab") as file:
        file.write(b"jumb c2pa.assertions")
    assert read_origin(tmp_path / "other.webp").credentials


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_picture_is_a_sentence(tmp_path, content, capsys):
    (tmp_path / "a.png").write_bytes(content)
    assert run("inspect", tmp_path / "a.png") == 2 and "no picture that can be read" in capsys.readouterr().err
    assert run("inspect", tmp_path / "none.png") == 2 and "There is no file" in capsys.readouterr().err


def test_the_xmp_is_well_formed_and_as_the_standard_names_it(painted):
    packet = Image.open(painted).info["XML:com.adobe.xmp"]
    (described,) = xml.fromstring(packet.partition("?>")[2].rpartition("<?")[0]).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    iptc = f"{{{NAMESPACES['Iptc4xmpExt']}}}"
    assert described.attrib[f"{iptc}DigitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert described.attrib[f"{iptc}AIPromptInformation"] == 'CT, "liver" <&>'
    assert described.attrib[f"{iptc}AISystemUsed"].startswith("emitdiff, ")
    assert "weights " in described.attrib[f"{iptc}AISystemVersionUsed"]
    odd = save_synthetic_png(
        np.zeros((4, 4), np.uint8), painted.parent / "synthetic_odd.png", {"prompt": "a\x00\x1fb\ud800"}
    )
    assert 'AIPromptInformation="ab"' in Image.open(odd).info["XML:com.adobe.xmp"]
