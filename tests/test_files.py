import errno
import os
import stat
from pathlib import Path

import pytest

from rsepm_edu.errors import UserError, one_line
from rsepm_edu.files import atomic_path, atomic_write_text, read_lines, remove_leftovers


def test_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_atomic_path_lies_beside_and_keeps_the_suffix(tmp_path):
    target = tmp_path / "new" / "folder" / "last.pt"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary != target
        assert temporary.suffix == ".pt"
        temporary.write_bytes(b"state")
        assert not target.exists()
    assert target.read_bytes() == b"state"
    assert os.listdir(target.parent) == ["last.pt"]


def test_atomic_path_replaces_only_when_the_block_ends_well(tmp_path):
    target = tmp_path / "log.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["log.txt"]

    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["log.txt"]


def test_atomic_path_of_two_writers_differ(tmp_path):
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        assert first != second
        first.touch()
        second.touch()


def test_atomic_path_with_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass


def test_atomic_write_text_is_utf8_with_unix_line_ends(tmp_path):
    path = tmp_path / "table.md"
    atomic_write_text(path, "θ = 0.30\nsecond line\n")
    assert path.read_bytes() == "θ = 0.30\nsecond line\n".encode()
    plain = tmp_path / "plain"
    plain.touch()
    # A file made by tempfile could be read by its owner alone: ours has ordinary permissions.
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_leftovers_are_what_atomic_path_leaves_and_nothing_else(tmp_path):
    kept = [".part", ".a.part.pt", ".a.0123abcd.pt", "a.0123abcd.part.pt", ".a.0123ABCD.part.pt"]
    for name in kept:
        (tmp_path / name).touch()
    paths = []
    for name in ("last.pt", "a.b.png", "plain"):
        with pytest.raises(FileNotFoundError), atomic_path(tmp_path / name) as temporary:
            paths.append(temporary)
    for path in paths:
        path.touch()
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "none")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_what_a_terminal_would_obey_is_shown_not_sent():
    assert str(UserError("a\x1b[31m\ufeffb\n\udcffc é θ")) == r"a\x1b[31m\ufeffb\n\udcffc é θ"
    assert one_line(ValueError("first\n  second\x07\nthird\nfourth")) == r"first second\x07 third"
    assert one_line(KeyError()) == "KeyError"


def test_read_lines_takes_windows_marks_and_refuses_what_is_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa b\r\nc\r\n")
    assert read_lines(path, "a list") == ["a b", "c"]
    path.write_bytes(b"a\nb\x00c\n")
    with pytest.raises(UserError, match=r"a\.txt, line 2: expected text in UTF-8, got the control character '\\x00'$"):
        read_lines(path, "a list")
    path.write_text("a\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"a\.txt: expected text in UTF-8, got: 'utf-8' codec can't decode byte"):
        read_lines(path, "a list")
    with pytest.raises(UserError, match=r"b\.txt: expected a list, got no such file$"):
        read_lines(tmp_path / "b.txt", "a list")
    with pytest.raises(UserError, match=r": expected a list, got what cannot be read: Is a directory$"):
        read_lines(tmp_path, "a list")
    with pytest.raises(UserError, match=r": expected a list, got what cannot be read: embedded null byte$"):
        read_lines("a\0b", "a list")


def test_an_error_while_writing_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "table.md"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "table.md") and not list(tmp_path.iterdir())
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "table.md") as temporary:
        (temporary / "below").write_text("")
    assert caught.value.filename != str(tmp_path / "table.md")  # it names one itself
