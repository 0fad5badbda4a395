"""Sources of assets: found wherever they lie, and taken only with the pinned hash."""

import hashlib
import tarfile
import zipfile
from pathlib import Path

import pytest

from fitdiff.assets.source_package import SourceFile, apache_licence
from fitdiff.errors import MissingError

DATA = b"weights"
SOURCE = SourceFile("toy", "1.0", "toy/data/weights.bin", hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    file = tmp_path / "unpacked" / "toy-1.0" / SOURCE.member
    file.parent.mkdir(parents=True)
    file.write_bytes(DATA)
    return tmp_path / "unpacked"


def test_file_and_folder(unpacked: Path) -> None:
    assert SOURCE.read(unpacked / "toy-1.0" / SOURCE.member) == DATA
    assert SOURCE.read(unpacked) == DATA


def test_wheel_sdist_and_the_folder_they_lie_in(unpacked: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    wheel, sdist = downloads / "toy-1.0-py3-none-any.whl", downloads / "toy-1.0.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(SOURCE.member, DATA)
    assert SOURCE.read(wheel) == SOURCE.read(downloads) == DATA
    wheel.unlink()
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(unpacked / "toy-1.0", "toy-1.0")
    assert SOURCE.read(sdist) == SOURCE.read(downloads) == DATA


def test_other_contents_are_refused(unpacked: Path) -> None:
    (unpacked / "toy-1.0" / SOURCE.member).write_bytes(b"other")
    with pytest.raises(MissingError, match="SHA-256"):
        SOURCE.read(unpacked)


def test_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(MissingError, match="no such file in it"):
        SOURCE.read(tmp_path)


def test_apache_licence_carries_the_notice_and_the_terms() -> None:
    text = apache_licence("Copyright somebody\n")
    assert text.startswith("Copyright somebody\n\n")
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
