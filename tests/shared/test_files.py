"""Files are replaced as a whole, or not at all."""

import pytest

from keras_redundancy._shared.files import replaced, writable_folder


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replaced(path) as fresh:
        fresh.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write():
        with replaced(path) as fresh:
            fresh.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_created_or_refused(tmp_path):
    folder = writable_folder("log_dir", tmp_path / "a" / "b")
    assert folder.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"log_dir=.*has to be a folder"):
        writable_folder("log_dir", tmp_path / "file")
