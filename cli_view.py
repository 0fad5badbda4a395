"""The command `fitdiff view`: parses, serves one page, opens it. Heavy imports stand inside, as in `cli`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from .cli_options import EXIT_CODES, debug_option


@click.command(epilog=EXIT_CODES)
@click.argument("avatar", metavar="DIR_OR_GLB", type=click.Path(exists=True, path_type=Path))
@click.option("--photo", type=click.Path(path_type=Path, dir_okay=False), help="Show this photo beside the avatar.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="[default: any that is free]")
@click.option("--browser/--no-browser", default=True, help="Open the page, or only print its address.")
@debug_option
def view(avatar: Path, photo: Path | None, port: int, browser: bool) -> None:
    """Show an avatar on a page of this machine: light, blendshapes, maps, wireframe, levels of detail.

    The page is served to this machine alone, with nothing but the files named here, until Ctrl-C. It loads
    nothing from anywhere else.

    \b
    Examples:
      fitdiff view out
      fitdiff view out/avatar.glb --photo examples/astronaut.jpg --no-browser --port 8080
    """
    from .exporter.viewer import PageServer, avatar_files, routes_of_avatar

    routes = routes_of_avatar(avatar_files(avatar), _jpeg(photo) if photo else None)
    with PageServer(routes, port) as server:
        click.echo(server.url)
        click.echo("Ctrl-C ends it.", err=True)
        if browser and not webbrowser.open(server.url):
            click.echo("fitdiff: note: no browser could be opened; open the address above in one", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("", err=True)


def _jpeg(photo: Path) -> bytes:
    """The photo upright, as every browser shows it, and without its metadata."""
    import io

    from PIL import Image

    from .runtime.photo import load_photo

    picture = Image.fromarray(load_photo(photo).pixels)
    picture.thumbnail((2048, 2048))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=92)
    return stream.getvalue()
