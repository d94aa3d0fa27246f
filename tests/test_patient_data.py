"""What names a patient stays in the file it came in: marked strings go in by every tag, and come out by no door."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import shutil
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fault_tools import run_verb
from gradio_client import Client, handle_file
from PIL import Image, PngImagePlugin
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from scan_files import dicom_dataset, ramp

from emitdiff.errors import EmitDiffError
from emitdiff.scans.reading import read_scan

MARK = "MARKED"
# Elements of DICOM PS3.15 annex E (Basic Application Level Confidentiality Profile) that hold words, names or dates.
IDENTIFYING = """
AccessionNumber AcquisitionComments AcquisitionDate AcquisitionDateTime AcquisitionDeviceProcessingDescription
AcquisitionProtocolDescription AcquisitionTime AdditionalPatientHistory AdmissionID AdmittingDate
AdmittingDiagnosesDescription Allergies BranchOfService CassetteID CommentsOnThePerformedProcedureStep
ConfidentialityConstraintOnPatientDataDescription ContentCreatorName ContentDate ContentTime ContrastBolusAgent
CountryOfResidence CurrentPatientLocation DerivationDescription DetectorID DeviceSerialNumber FrameComments
ImageComments ImagePresentationComments InstitutionAddress InstitutionName InstitutionalDepartmentName
IssuerOfPatientID LastMenstrualDate MedicalAlerts MedicalRecordLocator MilitaryRank NameOfPhysiciansReadingStudy
Occupation OperatorsName OtherPatientIDs OtherPatientNames PatientAddress PatientAge PatientBirthDate PatientBirthName
PatientBirthTime PatientComments PatientID PatientInsurancePlanCodeSequence PatientMotherBirthName PatientName
PatientReligiousPreference PatientSex PatientSize PatientState PatientTelephoneNumbers PatientWeight
PerformedProcedureStepDescription PerformedProcedureStepID PerformedStationName PerformingPhysicianName
PhysiciansOfRecord PreMedication ProtocolName ReasonForStudy ReferringPhysicianAddress ReferringPhysicianName
ReferringPhysicianTelephoneNumbers RegionOfResidence RequestedProcedureComments RequestedProcedureDescription
RequestedProcedureID RequestingPhysician RequestingService ResponsibleOrganization ResponsiblePerson
ScheduledPerformingPhysicianName SeriesDate SeriesDescription SeriesTime SmokingStatus SpecialNeeds StationName
StudyComments StudyDate StudyDescription StudyID StudyTime TextComments TimezoneOffsetFromUTC VisitComments
""".split()  # noqa: SIM905 - a hundred words read better than a list of strings
SHAPES = {"PN": f"{MARK}^Jane", "DA": "19610312", "TM": "131723", "DT": "19610312131723", "AS": "077Y", "DS": "77.1961",
          "IS": "771961", "CS": MARK, "SH": f"{MARK} sh", "LO": f"{MARK} long", "ST": f"{MARK} st", "LT": f"{MARK} lt",
          "UT": f"{MARK} ut", "AE": MARK}  # fmt: skip
MARKS = (MARK.encode(), b"19610312", b"131723", b"77.1961", b"771961", b"077Y")


def mark(dataset: Dataset) -> Dataset:
    """Every identifying element, private ones, sequences and the file's own header with marked strings in them."""
    for keyword in IDENTIFYING:
        vr = dictionary_VR(tag_for_keyword(keyword))
        if vr in SHAPES:
            setattr(dataset, keyword, SHAPES[vr])
    dataset.WindowCenter, dataset.WindowWidth = [500, 900], [900, 1200]
    dataset.WindowCenterWidthExplanation = [f"{MARK} DOE", "lung"]
    table = Dataset()
    table.LUTDescriptor, table.LUTExplanation = [16, 0, 8], f"{MARK} table"
    table.add_new("LUTData", "OW", np.arange(0, 256, 16, dtype="<u2").tobytes())
    dataset.VOILUTSequence = Sequence([table])
    inner = Dataset()
    inner.FrameComments = inner.FrameLabel = f"{MARK} frame"
    group = Dataset()
    group.FrameContentSequence = Sequence([inner])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([group])
    block = dataset.private_block(0x0011, f"{MARK} MAKER", create=True)
    block.add_new(0x01, "LO", f"{MARK} private")
    dataset.file_meta.SourceApplicationEntityTitle = MARK
    dataset.preamble = (MARK.encode() * 22)[:128]
    return dataset


def write_all(folder: Path) -> dict[str, Path]:
    """A file of every kind, marked wherever its format has room for words; none is called after anybody."""
    grey = ramp(64, 64, 255).astype(np.uint8)
    paths = {kind: folder / f"scan.{kind}" for kind in ("dcm", "nii", "png", "jpg", "tif", "webp")}
    mark(dicom_dataset(ramp(64, 64))).save_as(paths["dcm"], enforce_file_format=True)
    image = nibabel.Nifti1Image(grey[..., None].repeat(2, 2), np.eye(4))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = f"{MARK} {field}"[:15].encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"{MARK} comment".encode()))
    nibabel.save(image, paths["nii"])
    text, exif = PngImagePlugin.PngInfo(), Image.Exif()
    for key in ("Title", "Author", "Description", "emitdiff"):
        text.add_text(key, f"{MARK} {key}")
    text.add_itxt("XML:com.adobe.xmp", f"<x>{MARK}</x>")
    for tag in (0x010E, 0x013B, 0x8298, 0x0132, 0x010F):  # description, artist, copyright, date, maker
        exif[tag] = f"{MARK} {tag}"
    picture = Image.fromarray(grey)
    picture.save(paths["png"], pnginfo=text, exif=exif)
    picture.save(paths["jpg"], exif=exif, comment=f"{MARK} comment")
    picture.save(paths["tif"], description=f"{MARK} description", artist=MARK)
    picture.convert("RGB").save(paths["webp"], exif=exif, xmp=f"<x>{MARK}</x>".encode())
    for path in paths.values():
        assert MARK.encode() in path.read_bytes()
    return paths


@pytest.fixture(scope="module")
def marked(tmp_path_factory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("marked"))


def unpacked(content: bytes) -> bytes:
    """A file's bytes, and what lies compressed in them."""
    found = [content]
    if content[:2] == b"\x1f\x8b":
        found.append(gzip.decompress(content))
    place = 0
    while content[:4] == b"\x89PNG" and (place := content.find(b"zTXt", place + 1)) > 0:
        found.append(zlib.decompress(content[content.index(b"\0", place) + 2 :]))
    return b"".join(found)


def marks_in(content: bytes | str) -> list[bytes]:
    data = content.encode("utf-8", "replace") if isinstance(content, str) else unpacked(content)
    return [found for found in MARKS if found in data]


def marks_below(folder: Path) -> list[str]:
    return [
        path.name for path in folder.rglob("*") if path.is_file() and (marks_in(path.read_bytes()) or MARK in path.name)
    ]


def everything_said_of(scan) -> str:
    """What a scan holds besides its pixels."""
    facts = {name: value for name, value in vars(scan).items() if name != "values"}
    return repr(facts) + repr(vars(scan.geometry) if scan.geometry is not None else "") + repr(scan.windows)


KINDS = ("dcm", "nii", "png", "jpg", "tif", "webp")


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_and_its_masks_hold_none_of_it(marked, kind, tmp_path):
    scan = read_scan(marked[kind])
    assert not marks_in(everything_said_of(scan))
    for form in scan.mask_forms:
        scan.save_mask(np.ones((scan.num_slices, *scan.size), np.uint8), tmp_path / form, form, "liver")
    assert not marks_below(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_not_quoted(marked, kind, tmp_path, caplog, capfd):
    content = marked[kind].read_bytes()
    for place in (len(content) // 3, len(content) // 2, len(content) - 40):
        path = tmp_path / f"scan.{kind}"
        path.write_bytes(content[:place] + b"\xff" * 7)
        with caplog.at_level(logging.DEBUG):
            try:
                said = everything_said_of(read_scan(path))
            except EmitDiffError as error:
                said = str(error)
        assert not marks_in(said) and not marks_in(caplog.text) and not marks_in("".join(capfd.readouterr()))


def test_the_command_line_says_none_of_it_and_leaves_none_behind(marked, tmp_path):
    (tmp_path / "temporary").mkdir()
    place = {"TMPDIR": str(tmp_path / "temporary")}
    for kind in KINDS:
        answer = run_verb("edges", marked[kind], "-o", tmp_path / "out" / kind, env=place)
        assert answer.returncode == 0, answer.stderr
        assert not marks_in(answer.stdout + answer.stderr)
    assert list((tmp_path / "out").rglob("*.png")) and not marks_below(tmp_path)


def test_exports_of_a_marked_dataset_hold_none_of_it(marked, tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    for kind in ("dcm", "png", "tif"):
        shutil.copy(marked[kind], tmp_path / "set" / "images" / f"a.{kind}")
        Image.fromarray(np.eye(64, dtype=np.uint8)).save(tmp_path / "set" / f"{kind}.png")
    info = {"name": "set", "modality": "CT", "organ": "liver", "labels": {"liver": 1}}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(info))
    rows = "".join(f"images/a.{kind},{kind}.png,{kind}\n" for kind in ("dcm", "png", "tif"))
    (tmp_path / "set" / "metadata.csv").write_text("file_name,mask_file_name,group\n" + rows)
    for layout in ("nnunet", "monai", "coco", "paired"):
        answer = run_verb("export", tmp_path / "set", tmp_path / layout, "--format", layout, "--folds", 2)
        assert answer.returncode == 0, answer.stderr
        assert not marks_below(tmp_path / layout) and not marks_in(answer.stdout + answer.stderr)


@pytest.fixture(scope="module")
def page():
    """A page with tools for language models, and what it logs."""
    from fakes import fake_callables

    from emitdiff.backend.services import read_scan as reading
    from emitdiff.ui.demo import build_demo, launch_settings

    demo = build_demo(fake_callables(read_scan=reading))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, mcp_server=True, **launch_settings())
    yield demo, url
    demo.close()


def test_endpoints_answer_without_it(page, marked, caplog, capfd):
    client = Client(page[1], verbose=False, httpx_kwargs={"timeout": 120})
    with caplog.at_level(logging.DEBUG):
        for kind in KINDS:
            image = handle_file(str(marked[kind]))
            mask, found = client.predict(image, "lung", api_name="/segment")
            edges, noted = client.predict(image, api_name="/edges")
            painted, manifest = client.predict(image, "CT", api_name="/synthesize")
            said = json.dumps([found, manifest, mask, edges, noted, painted])
            assert not marks_in(said), kind
            for path in (mask, edges, *painted):
                assert not marks_in(Path(path).read_bytes()), (kind, path)
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("emitdiff"))
    assert not marks_in(ours) and not marks_in("".join(capfd.readouterr()))


def test_the_page_shows_none_of_it(page, marked):
    from emitdiff.backend.services import read_scan as reading
    from emitdiff.ui.source import describe_scan

    for kind in KINDS:
        scan = reading(marked[kind])
        shown = [describe_scan(scan), *scan.warnings, *scan.windows, str(scan.modality), *scan.mask_forms]
        assert not marks_in(" ".join(shown)), kind


def test_a_language_model_is_told_none_of_it(page, marked):
    import base64

    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    data = base64.b64encode(marked["dcm"].read_bytes()).decode()

    async def ask() -> str:
        async with (
            streamable_http_client(page[1].rstrip("/") + "/gradio_api/mcp/") as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name for tool in (await session.list_tools()).tools}
            name = next(tool for tool in tools if tool.endswith("segment"))
            given = {"image": f"data:application/dicom;base64,{data}", "text": "lung"}
            return repr(await session.call_tool(name, given))

    assert not marks_in(asyncio.run(ask()))
