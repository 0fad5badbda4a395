"""The paper preset: the paper's own networks, from copies that the user has got under their licences.

Says which files it takes, where they usually lie, where they come from, under which licence, and how to get them; finds
them, or says all that is missing in one error. A TOML file names copies that lie elsewhere, and licences of one's own.
Reads no weights: `loading.py` puts the models together.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import platformdirs

from ..errors import MissingError, UsageError
from ..models.checkpoint import WEIGHTS_SUFFIX, ModelCard
from .preset_pieces import ALL_ROLES, EXAMPLE, NATIVE, PACKAGES, PIECES, PYTORCH3D, RASTERISER_COMMAND, Piece

DEFAULT, PAPER = "default", "paper"
PRESETS = (DEFAULT, PAPER)
EMBEDDED = "embedded"  # instead of a path: the default preset's own


@dataclass(frozen=True)
class OwnLicence:
    """What a user states about a copy: the terms under which he has it."""

    licence: str
    commercial: bool


@dataclass(frozen=True)
class PresetFiles:
    """The files of a preset by key; an absent key is the embedded one. `licences` are by role."""

    name: str
    paths: Mapping[str, Path] = field(default_factory=dict)
    licences: Mapping[str, OwnLicence] = field(default_factory=dict)
    rasteriser: str = NATIVE

    def path(self, key: str) -> Path | None:
        return self.paths.get(key)

    def stated(self, card: ModelCard) -> ModelCard:
        """The card, with the licence that the user states for its role."""
        own = self.licences.get(card.role)
        if own is None:
            return card
        source = f"{card.source}; licence as stated in the preset file"
        return replace(card, licence=own.licence, commercial=own.commercial, source=source)


@dataclass(frozen=True)
class PieceState:
    """A piece, where it was found or None, and where it was looked for."""

    piece: Piece
    path: Path | None
    places: tuple[str, ...]
    embedded: bool = False

    @property
    def command(self) -> str:
        """What gets it onto this machine."""
        return self.piece.command.replace("{data}", _roots()["data"])


def preset_files(preset: str | Path, roles: Sequence[str] = ALL_ROLES) -> PresetFiles:
    """The files of "default" (none), of "paper", or of the paper preset that a TOML file describes.

    Args:
        roles: those that are needed; training needs no denoiser.

    Raises:
        MissingError: pieces are missing; the message lists them all.
        UsageError: no such preset, or a TOML file that cannot be used.
    """
    if preset == DEFAULT:
        return PresetFiles(DEFAULT)
    settings = _settings(preset)
    states = [state for state in _states(settings) if state.piece.role in roles]
    rasteriser = str(settings.values.get("rasteriser", PYTORCH3D))
    missing = [_wanted(state) for state in states if state.path is None and not state.embedded]
    for package in (PACKAGES[state.piece.role] for state in states if state.path and state.piece.role in PACKAGES):
        if find_spec(package) is None:
            missing.append(_paragraph("package", package, "PyPI", "open source", f"pip install {package}", ()))
    if rasteriser == PYTORCH3D and "denoiser" in roles and find_spec("pytorch3d") is None:
        pages = "https://pytorch3d.org", "BSD-3-Clause"
        missing.append(_paragraph("rasteriser", "PyTorch3D", *pages, RASTERISER_COMMAND, ()))
    if missing:
        raise MissingError(
            f"preset {settings.name}", f"{len(missing)} missing", "all of its pieces",
            "get these:\n" + "\n".join(missing) + f"\nCopies that lie elsewhere are named in {settings.file}; "
            f"{EXAMPLE} shows one, and how to train what nobody can ship.",
        )  # fmt: skip
    paths = {state.piece.key: state.path for state in states if state.path is not None}
    return PresetFiles(settings.name, paths, settings.licences(), rasteriser)


def preset_states() -> tuple[PieceState, ...]:
    """Every piece of the paper preset that is needed, found or not; an unreadable preset file is passed over."""
    try:
        settings = _settings(PAPER)
    except UsageError:
        settings = _Settings(PAPER, preset_path(), {})
    return tuple(_states(settings))


def refuse_non_commercial(cards: Iterable[ModelCard]) -> None:
    """Raise UsageError if a model may not be used commercially; the message lists all of these."""
    refused = [card for card in cards if not card.commercial]
    if refused:
        listed = "; ".join(f"{card.role} {card.name} ({card.licence})" for card in refused)
        remedy = "take the default preset, or state the licence that you have in the preset file"
        raise UsageError("--commercial", listed, "models for commercial use alone", remedy)


def preset_path() -> Path:
    """Where the paper preset's TOML file is looked for."""
    return platformdirs.user_config_path("fitdiff") / f"{PAPER}.toml"


@dataclass(frozen=True)
class _Settings:
    name: str
    file: Path
    values: Mapping[str, Any]

    def value(self, key: str) -> str | None:
        role, _, name = key.partition(".")
        table = self.values.get(role, {})
        if isinstance(table, str):
            return table
        return table.get(name)

    def licences(self) -> dict[str, OwnLicence]:
        tables = {role: table for role, table in self.values.items() if isinstance(table, Mapping)}
        return {
            role: OwnLicence(str(table["licence"]), bool(table.get("commercial", False)))
            for role, table in tables.items()
            if "licence" in table
        }


def _settings(preset: str | Path) -> _Settings:
    if preset == PAPER:
        file = preset_path()
        return _Settings(PAPER, file, _read(file) if file.is_file() else {})
    file = Path(preset).expanduser()
    if file.suffix != ".toml" or not file.is_file():
        raise UsageError("--preset", f"{preset}", f"{', '.join(PRESETS)} or a .toml file", "see " + EXAMPLE)
    return _Settings(str(file), file, _read(file))


def _read(file: Path) -> Mapping[str, Any]:
    thing = f"preset file {file}"
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(thing, str(error), "TOML", "see " + EXAMPLE) from error
    known = {piece.role: {"licence", "commercial"} for piece in PIECES}
    for piece in PIECES:
        known[piece.role].add(piece.key.partition(".")[2])
    replaceable = {piece.role for piece in PIECES if piece.replaceable}
    for role, table in values.items():
        if role == "rasteriser":
            if table not in (NATIVE, PYTORCH3D):
                raise UsageError(thing, f"rasteriser {table!r}", f"{NATIVE!r} or {PYTORCH3D!r}", "correct it")
        elif role not in known:
            raise UsageError(thing, f"table {role!r}", f"one of {', '.join((*known, 'rasteriser'))}", "correct it")
        elif isinstance(table, Mapping):
            if unknown := set(table) - known[role]:
                expected = ", ".join(sorted(known[role]))
                raise UsageError(thing, f"{role}.{sorted(unknown)[0]}", f"one of {expected}", "correct it")
        elif table != EMBEDDED or role not in replaceable:
            expected = f"a table, or {EMBEDDED!r} for one of {', '.join(sorted(replaceable))}"
            raise UsageError(thing, f"{role} = {table!r}", expected, "correct it")
    return values


def _states(settings: _Settings) -> list[PieceState]:
    found: list[PieceState] = []
    for piece in PIECES:
        named = settings.value(piece.key)
        if named == EMBEDDED:
            found.append(PieceState(piece, None, (), embedded=True))
        elif named is not None:
            path = Path(named).expanduser()
            path = path if path.is_absolute() else settings.file.parent / path
            found.append(PieceState(piece, path if _is_there(path) else None, (str(path),)))
        elif not piece.optional:
            places = tuple(pattern.format(**_roots()) for pattern in piece.places)
            found.append(PieceState(piece, _first(places), places))
    return found


def _is_there(path: Path) -> bool:
    """A checkpoint may be named without its suffix."""
    return path.is_file() or Path(f"{path}{WEIGHTS_SUFFIX}").is_file()


def _first(patterns: Sequence[str]) -> Path | None:
    for pattern in patterns:
        folder = Path(pattern.partition("*")[0])
        folder = folder if pattern.partition("*")[0].endswith("/") else folder.parent
        relative = pattern[len(str(folder)) + 1 :]
        if folder.is_dir() and (files := sorted(path for path in folder.glob(relative) if path.is_file())):
            return files[0]
    return None


def _roots() -> dict[str, str]:
    import torch

    package = find_spec("lpips")
    where = list(package.submodule_search_locations or []) if package else []
    return {
        "insightface": str(Path.home() / ".insightface" / "models"),
        "torch": str(Path(torch.hub.get_dir()) / "checkpoints"),
        "lpips": where[0] if where else "(package lpips)",
        "data": str(platformdirs.user_data_path("fitdiff") / PAPER),
    }


def _wanted(state: PieceState) -> str:
    piece = state.piece
    return _paragraph(piece.role, piece.what, piece.source, piece.licence, state.command, state.places)


def _paragraph(role: str, what: str, source: str, licence: str, command: str, places: Sequence[str]) -> str:
    lines = [f"  {role}: {what}", f"    from     {source}", f"    licence  {licence}", f"    get it   {command}"]
    return "\n".join([*lines, *([f"    looked   {', '.join(places)}"] if places else [])])
