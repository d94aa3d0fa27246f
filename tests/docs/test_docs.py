"""What the documentation says, held against the repository: links, commands, options, examples, names, figures."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import shutil
import typing
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

import emitdiff
from emitdiff import cli

ROOT = Path(emitdiff.__file__).resolve().parents[1]
README, COMMANDS = ROOT / "README.md", ROOT / "docs" / "commands.md"
PYTHON, APP = ROOT / "docs" / "python.md", ROOT / "docs" / "app.md"
PAGES = [
    README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "checkpoints").rglob("README.md")),
]  # fmt: skip
WRITTEN = [page for page in PAGES if page != COMMANDS]  # by users
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`]+)`")
# Options of other programs that the pages speak of.
FOREIGN_OPTIONS = {"--fast"}  # TotalSegmentator


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def every(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=name_of)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """Without code blocks."""
    return FENCE.sub("", text_of(page))


def blocks(text: str, language: str) -> list[str]:
    return [block for found, block in FENCE.findall(text) if found == language]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Targets of links and images that lie in the repository."""
    return re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", prose_of(page))


def test_readme_is_short():
    assert len(text_of(README).splitlines()) <= 150


@every(PAGES)
def test_links_anchors_and_images_lead_somewhere(page):
    for link in links(page):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
            waiting += [target for target in targets if target.suffix == ".md"]
    assert {page for page in PAGES if page.parent == ROOT / "docs"} <= reached


def test_measures_in_the_readme_are_those_of_the_page_on_weights():
    rows = re.findall(r"^\|.*(?:\.\d\d|\b107\b).*$", text_of(README), re.MULTILINE)
    assert len(rows) == 4 and set(rows) <= set(text_of(ROOT / "docs" / "weights.md").splitlines())


# --- the command line --------------------------------------------------------


def load_reference():
    spec = importlib.util.spec_from_file_location("command_reference", ROOT / "docs" / "command_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference():
    return load_reference()


@pytest.fixture(scope="module")
def parser(reference):
    return reference.build_parser()


def test_command_reference_is_what_the_command_line_says(reference, parser):
    assert text_of(COMMANDS) == reference.render(parser) + "\n", "run: python docs/command_reference.py"


def test_command_reference_has_every_command_and_option(reference, parser):
    found = dict(reference.commands(parser))
    assert len(found) >= len(cli.COMMANDS) + 5, "those of study too"
    sections = re.split(r"^## ", text_of(COMMANDS), flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections] == list(found)
    for section, one in zip(sections, found.values(), strict=True):
        for action in one._actions:
            assert action.dest == "help" or all(f"`{flag}`" in section for flag in action.option_strings)


def command_lines(page: Path) -> Iterator[str]:
    """Lines of code blocks, fenced or indented, and code spans, with what is continued joined; without comments."""
    text = text_of(page)
    shell = [block.replace("\\\n", " ") for language, block in FENCE.findall(text) if language in ("", "bash", "sh")]
    indented = re.findall(r"^    (\S.*)$", FENCE.sub("", text), re.MULTILINE)
    spans = [" ".join(span.split()) for span in CODE_SPAN.findall(FENCE.sub("", text))]
    yield from (line.strip() for line in [*"\n".join(shell).splitlines(), *indented, *spans])


def arguments_of(line: str) -> list[str] | None:
    """What `python -m emitdiff` is given in a line of the shell; None where the line runs something else."""
    found = re.search(r"(?:^|\s)-m emitdiff\s+(.+)$", line)
    form = found and re.search(r"COMMAND|VERB|\.\.\.`?$|^\w[\w-]* \.\.\.", found[1])
    return shlex.split(found[1], comments=True) if found and not form else None


@every(WRITTEN)
def test_commands_are_understood(page, reference, parser, capsys):
    names = dict(reference.commands(parser))
    for line in command_lines(page):
        arguments = arguments_of(line)
        if arguments is None or " ".join(arguments) in names:  # named only
            continue
        try:
            cli.parse(arguments)
        except SystemExit:
            pytest.fail(f"{line}\n{capsys.readouterr().err}")


def test_pages_show_every_command(reference, parser):
    """The guides, taken together, have an example of each command."""
    given = [arguments for page in WRITTEN for line in command_lines(page) if (arguments := arguments_of(line))]
    shown = {" ".join(arguments[:words]) for arguments in given for words in (1, 2)}
    assert {name for name, _ in reference.commands(parser)} <= shown


@every(WRITTEN)
def test_other_programs_and_files_in_commands_are_there(page):
    targets = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for line in command_lines(page):
        words = shlex.split(line, comments=True) if re.match(r"(PORT=\d+ )?(make|python|\.venv)\b", line) else []
        words = [word for word in words if not re.match(r"[A-Z]+=", word)]
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets, line
        for number, word in enumerate(words[1:], start=1):
            if word.endswith(".py"):
                assert (ROOT / word).is_file(), line
            if words[number - 1] == "-m" and word.startswith("benchmarks."):
                assert (ROOT / f"{word.replace('.', '/')}.py").is_file(), line


def known_options(parser) -> set[str]:
    """Of every command, of the application and of the benchmarks."""
    sources = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")]
    found = {flag for source in sources for flag in re.findall(r"\"(--[\w-]+)\"", text_of(source))}
    for _, one in load_reference().commands(parser):
        found |= {flag for action in one._actions for flag in action.option_strings}
    return found | FOREIGN_OPTIONS


@every(WRITTEN)
def test_options_in_running_text_exist(page, parser):
    known = known_options(parser)
    for span in CODE_SPAN.findall(prose_of(page)):
        own = not re.match(r"(docker|accelerate|torchrun|pip)\b", span)
        for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", span) if own else ():
            assert flag in known, span


@every(WRITTEN)
def test_commands_of_study_in_running_text_exist(page, reference, parser):
    known = dict(reference.commands(parser))
    for name in re.findall(r"`(study [\w-]+)", prose_of(page)):
        assert name in known, name


@every([README, APP])
def test_options_of_the_application_exist(page, reference, parser):
    known = {flag for action in dict(reference.commands(parser))["serve"]._actions for flag in action.option_strings}
    for line in command_lines(page):
        if re.match(r"python app\.py", line):
            assert set(re.findall(r"--[\w-]+", line)) <= known, line


# --- Python ------------------------------------------------------------------


def python_sections(page: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, its blocks of Python) of every second-level section that has some; they share their names."""
    for section in re.split(r"^## ", text_of(page), flags=re.MULTILINE):
        if found := blocks(section, "python"):
            yield f"{name_of(page)}: {section.splitlines()[0]}", found


# Those of docs/app.md need a server: tests/ui/test_programs.py runs them.
EXAMPLES = [
    pytest.param(found, id=name, marks=[pytest.mark.slow] * any("load_s" in block for block in found))
    for page in WRITTEN if page != APP for name, found in python_sections(page)
]  # fmt: skip


@pytest.fixture
def example_files(tmp_path, disc, dataset_folder, monkeypatch) -> Path:
    """The files that the examples name, in the folder where they run."""
    image, mask = disc
    Image.fromarray(image).save(tmp_path / "scan.png")
    Image.fromarray(mask * 255).save(tmp_path / "mask.png")
    shutil.copytree(dataset_folder, tmp_path / "my-data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("found", EXAMPLES)
def test_python_examples_run_as_they_are_written(found, example_files):
    names: dict = {}
    for block in found:
        exec(block, names)


def test_all_examples_are_complete():
    assert len(EXAMPLES) >= 7
    for example in EXAMPLES:
        assert re.match(r"(from|import) ", example.values[0][0]), example.id


def test_what_the_examples_import_is_there():
    """Fast, whereas most of the examples are slow."""
    for example in EXAMPLES:
        for block in example.values[0]:
            exec("\n".join(line for line in block.splitlines() if re.match(r"(from|import) ", line)), {})


def api_section(title: str) -> str:
    return re.split(r"^## ", text_of(PYTHON).split(f"\n## {title}\n", 1)[1], flags=re.MULTILINE)[0]


def returned(function) -> type:
    """The class that `function` says it returns, or a list or iterator of."""
    annotation = inspect.signature(function, eval_str=True).return_annotation
    return next(iter(typing.get_args(annotation)), annotation)


def test_the_page_on_python_names_every_argument_and_field_of_the_public_api():
    synthesizer, segmenter = returned(emitdiff.load_synthesizer), returned(emitdiff.load_segmenter)
    scan = returned(emitdiff.read_scan)
    members = [name for name in vars(scan) if not name.startswith("_") and name not in INTERNAL]
    expected = {
        "Synthesis": [
            *inspect.signature(emitdiff.load_synthesizer).parameters,
            *inspect.signature(synthesizer.stream).parameters,
            *(field.name for field in fields(emitdiff.SynthesisSettings)),
            *(field.name for field in fields(emitdiff.MaskEdit)),
            *(field.name for field in fields(returned(synthesizer.__call__))),
        ],
        "Edges": inspect.signature(emitdiff.detect_edges).parameters,
        "Segmentation": [
            *inspect.signature(emitdiff.load_segmenter).parameters,
            *inspect.signature(segmenter.__call__).parameters,
            *inspect.signature(segmenter.segment).parameters,
            *inspect.signature(segmenter.presence_logits).parameters,
            *(field.name for field in fields(returned(segmenter.encode))),
            *(field.name for field in fields(returned(segmenter.__call__))),
        ],
        "Scans and masks": [*members, *(field.name for field in fields(scan) if field.name not in INTERNAL)],
    }
    functions = {"load_synthesizer", "load_segmenter", "detect_edges", "read_scan"}
    assert set(emitdiff.__all__) == {*functions, "SynthesisSettings", "MaskEdit"}
    for title, names in expected.items():
        section = api_section(title)
        for name in names:
            assert name == "self" or re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", section), f"{title}: {name}"


# Members of Scan that only the package itself uses.
INTERNAL = {"values", "inverted", "geometry", "origin", "window_used", "slice_windows", "keep", "only"}


@pytest.mark.slow
def test_the_result_that_the_readme_quotes_is_what_is_printed(monkeypatch, tmp_path, capsys):
    (line,) = (line for line in command_lines(README) if "-m emitdiff segment emitdiff/" in line)
    arguments = arguments_of(line)
    monkeypatch.setattr("sys.argv", ["emitdiff", *arguments[:1], str(ROOT / arguments[1]), *arguments[2:]])
    monkeypatch.chdir(tmp_path)
    assert cli.main() == 0
    assert f"`{capsys.readouterr().out.strip()}`" in text_of(README)


# --- the design --------------------------------------------------------------


@every([ROOT / "docs" / "design.md", ROOT / "CONTRIBUTING.md"])
def test_files_and_folders_that_are_named_exist(page):
    text = text_of(page)
    spans = [span for span in CODE_SPAN.findall(FENCE.sub("", text)) if re.match(r"(emitdiff|tests|docs)/", span)]
    layout = text.split("\nemitdiff/\n", 1)[1].split("```")[0] if "\nemitdiff/\n" in text else ""
    for name in [*spans, *re.findall(r"[\w.]+(?:/|\.py)", layout)]:
        if "NAME" not in name and name != "conftest.py":
            places = [ROOT, ROOT / "emitdiff", *(ROOT / "emitdiff").glob("*/")]
            assert any((place / name).exists() for place in places), name
