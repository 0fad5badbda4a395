"""A page that shows one avatar, served on this machine alone.

Serves a fixed table of paths, each the bytes of one file that was named before the server began: no path of a
request is ever looked up on the disk. It knows nothing of glTF; the page in `view_page` does the showing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UsageError

LOOPBACK = "127.0.0.1"
_PAGE = Path(__file__).with_name("view_page")
_PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{
        f"/{name}": (name, "text/javascript; charset=utf-8")
        for name in ("viewer.js", "avatar.js", "lighting.js", "panel.js", "shapes.js", "surfaces.js")
    },
    "/vendor/three.min.js": ("vendor/three.min.js", "text/javascript; charset=utf-8"),
    "/vendor/basis_transcoder.js": ("vendor/basis_transcoder.js", "text/javascript; charset=utf-8"),
    "/vendor/basis_transcoder.wasm": ("vendor/basis_transcoder.wasm", "application/wasm"),
}
# The page runs its own scripts alone. Textures inside a GLB become blobs; the KTX2 transcoder is WebAssembly in a
# worker that starts as a blob.
_POLICY = (
    "default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self' blob: data:; worker-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOD_NAME = re.compile(r"[._-]?lod(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Served:
    """What one path answers: a file, or bytes."""

    body: Path | bytes
    mime: str

    def read(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else self.body.read_bytes()


class PageServer(ThreadingHTTPServer):
    """Answers GET and HEAD for the paths of a table, on the loopback interface only.

    Attributes:
        routes: answer by path. Nothing else is served.
    """

    daemon_threads = True

    def __init__(self, routes: Mapping[str, Served], port: int = 0) -> None:
        """Begin to listen; port 0 takes any that is free.

        Raises:
            UsageError: the port is taken, or not one that this user may have.
        """
        self.routes = dict(routes)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UsageError("port", f"{port} ({error.strerror})", "a free one", "leave out --port") from error

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"


def avatar_files(path: Path) -> list[Path]:
    """The GLB files that belong together: the one that is named, or a folder's avatar.glb, then its lower levels.

    Lower levels are the files beside it that are named like it with "lod" and a number: avatar_lod1.glb.

    Raises:
        UsageError: there is no such file, or it is no GLB.
    """
    main = path / "avatar.glb" if path.is_dir() else path
    if not main.is_file():
        raise UsageError("avatar", f"no file {main}", "a GLB file, or a folder with avatar.glb", "name another")
    with main.open("rb") as stream:
        head = stream.read(4)
    if head != b"glTF":
        raise UsageError("avatar", f"{main}, which begins with {head!r}", "a binary glTF file", "name a .glb file")
    levels = {}
    for other in main.parent.glob("*.glb"):
        match = _LOD_NAME.fullmatch(other.stem.removeprefix(main.stem)) if other.stem.startswith(main.stem) else None
        if match:
            levels[int(match[1])] = other
    return [main, *(levels[number] for number in sorted(levels))]


def routes_of_avatar(files: list[Path], photo: bytes | None = None) -> dict[str, Served]:
    """The table of a page that shows these GLB files, the first at once, beside a photo (JPEG) if there is one."""
    routes = {path: Served(_PAGE / name, mime) for path, (name, mime) in _PAGE_FILES.items()}
    models = [{"url": f"/model/{number}.glb", "name": file.name} for number, file in enumerate(files)]
    for model, file in zip(models, files, strict=True):
        routes[model["url"]] = Served(file, "model/gltf-binary")
    if photo is not None:
        routes["/photo.jpg"] = Served(photo, "image/jpeg")
    listing = {"models": models, "photo": None if photo is None else "/photo.jpg"}
    return routes | {"/avatar.json": Served(json.dumps(listing).encode(), "application/json")}


class _Handler(BaseHTTPRequestHandler):
    server: PageServer  # pyright: ignore[reportIncompatibleVariableOverride]  (it serves no other)
    server_version = "FitDiff"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        # Another site's page may resolve its own name to 127.0.0.1 and ask in the user's browser: then the Host
        # is that site's name.
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            return self._refuse(HTTPStatus.FORBIDDEN)
        served = self.server.routes.get(urlsplit(self.path).path)
        if served is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        try:
            body = served.read()
        except OSError:
            return self._refuse(HTTPStatus.GONE)
        self._begin(HTTPStatus.OK, served.mime, len(body))
        if with_body:
            self.wfile.write(body)
        return None

    def _refuse(self, status: HTTPStatus) -> None:
        self._begin(status, "text/plain", 0)

    def _begin(self, status: HTTPStatus, mime: str, length: int) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": mime, "Content-Length": str(length), **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are nobody's business."""
