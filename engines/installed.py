"""Which versions make cached files here, and whether a file was made by them. Knows no backend beyond its version."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..errors import MissingError
from .cache import Manifest
from .cache_key import EngineKey, sha256_of_file, texts_from_mapping

EXPORTERS = ("torch", "onnx", "onnxscript")
_PACKAGE = Path(__file__).resolve().parent.parent
_GRAPH_CODE = ("models", "engines")  # folders whose own modules make graphs; the backends are in folders below


def exporter_versions() -> tuple[str, ...]:
    """ "name=version" of the packages that export.

    Raises:
        MissingError: one is not installed.
    """
    found: dict[str, object] = {}
    for package in EXPORTERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            remedy = "run pip install 'fitdiff[engines]'"
            raise MissingError(f"package {package}", "no such package", "it, to export graphs", remedy) from None
    return texts_from_mapping(found)


@cache
def source_sha256() -> str:
    """Hash of the source files that decide what is in an exported graph."""
    digest = hashlib.sha256()
    for folder in _GRAPH_CODE:
        for path in sorted((_PACKAGE / folder).glob("*.py")):
            digest.update(f"{folder}/{path.name} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def is_of_installed_version(manifest: Manifest) -> bool:
    """Whether what is installed here would look for this file again, as far as versions go."""
    key = manifest.key
    if manifest.kind == EngineKey.kind:
        return key.get("backend_version") == _backend_version(str(key.get("backend")))
    try:
        versions = list(exporter_versions())
    except MissingError:
        return False
    return (key.get("versions"), key.get("source_sha256")) == (versions, source_sha256())


@cache
def _backend_version(name: str) -> str | None:
    from .backends import BACKENDS

    return BACKENDS[name].availability().version if name in BACKENDS else None
