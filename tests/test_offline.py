"""The main job opens no socket."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fitdiff.cli import main


class SocketOpened(AssertionError):
    pass


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every way to a socket raises: Python's own functions, and the audit events beneath them."""
    active = True

    def forbidden(*arguments: Any, **_: Any) -> Any:
        raise SocketOpened(arguments)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event.startswith("socket."):
            raise SocketOpened(event, arguments)

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, forbidden)
    sys.addaudithook(audit)  # cannot be taken away again, only made to sleep
    yield
    active = False


def test_the_guard_works(no_network: None) -> None:
    import _socket

    with pytest.raises(SocketOpened):
        socket.create_connection(("127.0.0.1", 9))
    with pytest.raises(SocketOpened):
        _socket.socket()


def test_avatar_without_network(no_network: None, small_models: Path, astronaut: Path, tmp_path: Path) -> None:
    arguments = ["--debug", "avatar", str(astronaut), "--out", str(tmp_path / "out"), "--steps", "2"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "out" / "avatar.glb").is_file()
    for command in ("doctor", "models"):
        assert CliRunner().invoke(main, ["--debug", command], catch_exceptions=False).exit_code == 0
