"""Files appear whole, and a run goes on only as it was begun."""

import threading

import pytest

from emitdiff.errors import EmitDiffError
from emitdiff.files import begin_record, make_folder, write_text, write_whole


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "name.json"
    write_text(path, "first")

    def fails(partial):
        partial.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_whole(path, fails)
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_run_goes_on_as_it_was_begun_only(tmp_path):
    path = tmp_path / "out" / "state" / "begun.json"
    for _ in range(2):
        begin_record(path, {"seed": 0, "size": (256, 256)}, tmp_path / "out")
    with pytest.raises(EmitDiffError, match=r"out was begun with seed 0, now 1\. Give another folder"):
        begin_record(path, {"seed": 1, "size": (256, 256)}, tmp_path / "out")
    path.write_text("{")
    with pytest.raises(EmitDiffError, match="is damaged"):
        begin_record(path, {"seed": 0}, tmp_path / "out")


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

        write_whole(tmp_path / "word", half_by_half)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "word").read_text() in ("aa", "bb")
    assert [path.name for path in tmp_path.iterdir()] == ["word"]
