"""Files appear whole, and a run goes on only as it was started."""

import errno
import threading

import numpy as np
import pytest
from fault_tools import failing_disk
from PIL import Image

from emitdiff.errors import EmitDiffError
from emitdiff.files import (
    begin_record,
    check_no_foreign_files,
    check_output_folder,
    check_writable,
    file_stem,
    list_files,
    locked,
    make_folder,
    write_atomically,
    write_png,
    write_text,
)


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "name.json"
    write_text(path, "first")

    def fails(partial):
        partial.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_atomically(path, fails)
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_not_listed(tmp_path):
    listed = []
    write_atomically(tmp_path / "a.csv", lambda partial: (partial.touch(), listed.append(list_files(tmp_path))))
    assert listed == [[]] and list_files(tmp_path) == ["a.csv"]


def test_others_may_read_what_a_writer_kept_to_itself(tmp_path):
    def secretive(partial):
        partial.write_text("weights")
        partial.chmod(0o600)

    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "head", secretive)
    assert (tmp_path / "head").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_run_resumes_as_it_was_started_only(tmp_path):
    path = tmp_path / "out" / "state" / "begun.json"
    for _ in range(2):
        begin_record(path, {"seed": 0, "size": (256, 256)}, tmp_path / "out")
    with pytest.raises(EmitDiffError, match=r"out was started with seed 0, now 1\. Give another folder"):
        begin_record(path, {"seed": 1, "size": (256, 256)}, tmp_path / "out")
    path.write_text("{")
    with pytest.raises(EmitDiffError, match="is damaged"):
        begin_record(path, {"seed": 0}, tmp_path / "out")


def test_what_an_older_version_did_not_record_is_not_compared(tmp_path):
    path = tmp_path / "begun.json"
    write_text(path, '{"seed": 0}')
    begin_record(path, {"seed": 0, "from": "mine"}, tmp_path, optional=("from",))
    with pytest.raises(EmitDiffError, match="started with from mine, now None"):
        begin_record(path, {"seed": 0, "from": None}, tmp_path, optional=("from",))


def test_files_of_others_are_named_and_litter_is_not(tmp_path):
    assert list_files(tmp_path / "nowhere") == []
    (tmp_path / "empty" / "below").mkdir(parents=True)
    for name in (".DS_Store", "Thumbs.db", "empty/.DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "file").touch()
    check_no_foreign_files(tmp_path)
    for name in ("b.txt", "a.txt", "empty/c.txt", "empty/below/d.txt"):
        (tmp_path / name).touch()
    check_no_foreign_files(tmp_path, ("b.txt", "a.txt", "empty/c.txt", "empty/below/d.txt", "not there"))
    with pytest.raises(EmitDiffError, match=r"files: b.txt, empty/c.txt, empty/below/d.txt\. Give another folder"):
        check_no_foreign_files(tmp_path, ("a.txt",))
    with pytest.raises(EmitDiffError, match=r"files: a.txt, b.txt, empty/c.txt and 1 more\."):
        check_no_foreign_files(tmp_path)


def test_a_link_to_a_folder_is_looked_into_and_a_circle_ends(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "out")
    assert list_files(tmp_path / "out") == ["images/a.txt"]


def test_a_run_knows_its_own_folder_and_keeps_off_what_it_reads(tmp_path):
    source, begun = tmp_path / "source", tmp_path / "source" / "begun"
    (begun / "state").mkdir(parents=True)
    (begun / "state" / "x").touch()
    check_output_folder(begun, ("state/x",), (source, None, "a name of the Hub"))
    for out in (source, source / "new", tmp_path / "else" / ".." / "source" / "new"):
        with pytest.raises(EmitDiffError, match="is the folder of source"):
            check_output_folder(out, ("begun/state/x",) if out == source else ("state/x",), (source,))
    with pytest.raises(EmitDiffError, match="contains other files: state/x"):
        check_output_folder(begun, ("state/y",), ())


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmitDiffError, match="given cannot be made"):
        make_folder(tmp_path / "file" / "state", named="given")


def test_two_threads_that_write_the_same_file_do_not_mix_it_up(tmp_path):
    together = threading.Barrier(2)

    def write(letter: str) -> None:
        def half_by_half(partial):
            with partial.open("w") as file:
                for _ in range(2):
                    together.wait(10)
                    file.write(letter)
                    file.flush()

        write_atomically(tmp_path / "word", half_by_half)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "word").read_text() in ("aa", "bb")
    assert [path.name for path in tmp_path.iterdir()] == ["word"]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("../../brain scan.nii.gz", "brain_scan"),
        ("Chest.JPEG", "Chest"),
        ("1.2.840.113", "1.2.840.113"),
        ("series.zip", "series"),
        ("", "scan"),
        (".png", "scan"),
        ("..", "scan"),
    ],
)
def test_a_stem_is_safe_and_keeps_series_apart(name, stem):
    assert file_stem(name) == stem


def test_a_folder_is_had_by_one_run_at_a_time(tmp_path):
    words = "Another run is writing into .*: wait until it has ended"
    with locked(tmp_path), pytest.raises(EmitDiffError, match=words), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_who_waits_for_a_folder_has_it_afterwards(tmp_path):
    order = []

    def wait():
        with locked(tmp_path, wait=True):
            order.append("second")

    with locked(tmp_path):
        other = threading.Thread(target=wait)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_whether_a_folder_can_be_written_is_found_out_without_making_it(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(EmitDiffError, match="The folder .*out cannot be made .*: give another one"):
        check_writable(tmp_path / "file" / "out")
    with failing_disk(tmp_path, 0, errno.EROFS), pytest.raises(EmitDiffError, match="Read-only"):
        check_writable(tmp_path)
    with failing_disk(tmp_path, 0, errno.EROFS), pytest.raises(EmitDiffError, match="Read-only"):
        check_output_folder(tmp_path / "out", (), ())


def test_a_write_that_fails_names_the_file_and_not_its_part(tmp_path):
    with failing_disk(tmp_path, 0), pytest.raises(OSError, match="No space") as caught:
        write_text(tmp_path / "name.json", "text")
    assert caught.value.filename == str(tmp_path / "name.json")


def test_a_png_is_written_whole(tmp_path):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(np.asarray(Image.open(write_png(tmp_path / "a.png", array))), array)
