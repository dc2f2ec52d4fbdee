"""Files are replaced as a whole, or not at all."""

import pytest

import keras_redundancy as kr
from keras_redundancy._shared.files import replaced, writable_folder
from tests import models


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


def test_a_folder_is_never_replaced_by_a_file(tmp_path):
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    report = kr.analyze(models.mlp(), tau=0.5)
    for write in (report.to_html, report.to_csv, report.to_json):
        for path in (folder, str(folder), tmp_path):
            with pytest.raises(IsADirectoryError, match="is a folder, and"):
                write(path)
    assert (folder / "thesis.txt").read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [folder]


def test_only_the_folder_of_a_model_is_replaced_by_that_of_another(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "notes.txt").write_text("years of work")
    with pytest.raises(IsADirectoryError), replaced(folder, of_model=True):
        pass
    (folder / "saved_model.pb").write_text("")
    with replaced(folder, of_model=True) as fresh:
        fresh.mkdir()
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


def test_what_a_link_leads_to_is_replaced(tmp_path):
    path, link = tmp_path / "file.txt", tmp_path / "link.txt"
    path.write_text("old")
    link.symlink_to(path)
    with replaced(link) as fresh:
        fresh.write_text("new")
    assert link.is_symlink()
    assert path.read_text() == "new"


def test_a_folder_is_created_or_refused(tmp_path):
    folder = writable_folder("log_dir", tmp_path / "a" / "b")
    assert folder.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"log_dir=.*has to be a folder"):
        writable_folder("log_dir", tmp_path / "file")
