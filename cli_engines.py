"""The commands `fitdiff engines ...`: the cache of built engines. Parses, calls the library, prints.

Heavy imports stand inside the commands, as in `cli`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from .cli_options import EXIT_CODES, debug_option, print_table, progress_bar
from .errors import FitDiffError, UsageError

if TYPE_CHECKING:
    from .engines.cache import CacheEntry, EngineCache
    from .engines.options import Precision

BACKENDS = ("auto", "onnxruntime", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
cache_option = click.option(
    "--cache", "root", type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the engines. [default: $FITDIFF_CACHE, or the user's cache folder]",
)  # fmt: skip


@click.group(epilog=EXIT_CODES)
def engines() -> None:
    """Build the engines ahead of their use; look after the folder that they are kept in."""


@engines.command(epilog=EXIT_CODES)
@click.option(
    "--backend", default="auto", show_default=True, type=click.Choice(BACKENDS), help="What the engines are for."
)
@click.option("--graph", "names", multiple=True, metavar="NAME", help="One graph; may be given again. [default: all]")
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(["fp32", "fp16"]))
@click.option(
    "--max-batch", default=1, show_default=True, type=click.IntRange(1),
    help="1 builds for single images, more for every batch up to that.",
)  # fmt: skip
@click.option(
    "--refittable", is_flag=True,
    help="TensorRT plans that take the weights of a later checkpoint without a build. Building them needs a GPU.",
)  # fmt: skip
@cache_option
@debug_option
def build(
    backend: str, names: tuple[str, ...], precision: Precision, max_batch: int, refittable: bool, root: Path | None
) -> None:
    """Build what is not in the cache yet. What is there and whole is kept, and so is a refittable plan of the same
    architecture: it takes the weights when it is loaded.

    \b
    Examples:
      fitdiff engines build
      fitdiff engines build --backend tensorrt-rtx --precision fp16 --graph denoiser --graph texture_decoder
    """
    import torch

    from .engines.build import backend_to_build, build_engine, check_graph_names, graphs_named, is_about_one_graph
    from .engines.cache import EngineCache, default_cache_root
    from .engines.graphs import GRAPH_NAMES
    from .engines.options import EngineOptions
    from .runtime.graph_sources import graph_sources
    from .runtime.loading import load_pipeline

    check_graph_names(names)
    wanted = names or GRAPH_NAMES
    chosen = backend_to_build(backend)
    if refittable and not chosen.startswith("tensorrt"):
        raise UsageError("--refittable", f"backend {chosen}", "tensorrt or tensorrt-rtx", "leave it out")
    on_gpu = chosen != "onnxruntime" and torch.cuda.is_available()
    folder = root or default_cache_root()
    options = EngineOptions(precision, max_batch, folder, torch.device("cuda" if on_gpu else "cpu"), refit=refittable)
    failed: list[str] = []
    with progress_bar("engines", len(wanted) + 1) as step:
        step("loading the models", 0)
        pipeline = load_pipeline()
        graphs = graphs_named(wanted, graph_sources(pipeline.denoiser, pipeline.models), EngineCache(folder))
        step("", 1)
        for name in wanted:
            start, was_told = time.monotonic(), False

            def tell(text: str, share: float, name: str = name) -> None:
                nonlocal was_told
                was_told = True
                step(f"{name}: {text}" + (f", {share:.0%}" if share else ""), 0)

            step(f"{name}: looking for it", 0)
            try:
                engine = build_engine(next(graphs), chosen, options, tell)
            except FitDiffError as error:
                if not is_about_one_graph(error):
                    raise
                failed.append(name)
                click.echo(f"fitdiff: {error}", err=True)
                continue
            finally:
                step("", 1)
            made = f"made in {time.monotonic() - start:.1f} s" if was_told else "in the cache"
            made += ", takes its weights when it is loaded" if engine.needs_refit else ""
            click.echo(f"{name}: {chosen}, {precision}, {engine.path.stat().st_size / 2**20:.1f} MiB, {made}")
    if failed:
        remedy = "see the messages above; these graphs can run on another backend"
        raise FitDiffError(f"engines for {chosen}", f"none of {', '.join(failed)}", "all graphs", remedy)
    click.echo(f"{folder}: {len(wanted)} {'engine' if len(wanted) == 1 else 'engines'} for {chosen}")


@engines.command("list", epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object for every file.")
@cache_option
@debug_option
def list_engines(as_json: bool, root: Path | None) -> None:
    """What is in the cache, newest first. Every file is hashed.

    \b
    Example:
      fitdiff engines list
    """
    cache = _cache(root)
    entries = cache.entries()
    if as_json:
        click.echo(json.dumps([_described(entry) for entry in entries], indent=2))
        return
    table = Table("Graph", "Backend", "Precision", "Profile", "GPU", "MiB", "Age", "State")
    for entry in entries:
        size = f"{entry.bytes / 2**20:.1f}"
        table.add_row(*map(escape, (*_cells(entry), size, _age(entry), entry.problem or "ok")))
    print_table(table)
    total = sum(entry.bytes + entry.kernel_bytes for entry in entries)
    click.echo(f"{cache.root}: {len(entries)} {'file' if len(entries) == 1 else 'files'}, {_mib(total)}")


@engines.command(epilog=EXIT_CODES)
@click.option("--repair", is_flag=True, help="Delete what is damaged; it is built again when it is needed.")
@cache_option
@debug_option
def verify(repair: bool, root: Path | None) -> None:
    """Hash every file and compare it with its manifest. Exit code 1 where one is damaged and stays.

    \b
    Examples:
      fitdiff engines verify
      fitdiff engines verify --repair
    """
    cache = _cache(root)
    entries = cache.entries()
    damaged = [entry for entry in entries if entry.problem]
    for entry in damaged:
        click.echo(f"{_title(entry)}: {entry.problem}")
    if repair:
        stayed = [entry for entry in damaged if _remove(cache, entry) is None]
        cache.remove_unfinished()
    else:
        stayed = damaged
    if stayed:
        names, remedy = ", ".join(entry.path.name for entry in stayed), "run fitdiff engines verify --repair"
        raise FitDiffError(f"engine cache {cache.root}", f"damaged {names}", "files as their manifests say", remedy)
    whole = len(entries) - len(damaged)
    click.echo(f"{cache.root}: {whole} files are whole" + (f", {len(damaged)} removed" if damaged else ""))


@engines.command(epilog=EXIT_CODES)
@click.option("--older-than", type=click.FloatRange(0), metavar="DAYS", help="What was built longer ago.")
@click.option("--unused-versions", is_flag=True, help="What other versions of the packages, or of fitdiff, built.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@cache_option
@debug_option
def prune(older_than: float | None, unused_versions: bool, everything: bool, root: Path | None) -> None:
    """Delete engines, what TensorRT-RTX finished of them for a GPU, and what unfinished builds left.

    What another process is building stays.

    \b
    Examples:
      fitdiff engines prune --unused-versions
      fitdiff engines prune --older-than 30
    """
    if older_than is None and not unused_versions and not everything:
        raise click.UsageError("One of '--older-than', '--unused-versions' and '--all' is needed.")
    cache = _cache(root)
    freed, removed = cache.remove_unfinished(), 0
    for entry in cache.entries():
        if everything or _is_older(entry, older_than) or (unused_versions and _is_unused(entry)):
            size = _remove(cache, entry)
            if size is not None:
                freed, removed = freed + size, removed + 1
                kernels = f", with kernels for its GPU, {_mib(entry.kernel_bytes)}" if entry.kernel_bytes else ""
                click.echo(f"{_title(entry)}: {_mib(size)}{kernels}")
    click.echo(f"{cache.root}: {removed} {'engine' if removed == 1 else 'engines'} removed, {_mib(freed)} freed")


def _cache(root: Path | None) -> EngineCache:
    from .engines.cache import EngineCache

    return EngineCache(root)


def _remove(cache: EngineCache, entry: CacheEntry) -> int | None:
    size = cache.remove(entry)
    if size is None:
        click.echo(f"fitdiff: note: {_title(entry)} stays: another process is building it", err=True)
    return size


def _is_older(entry: CacheEntry, days: float | None) -> bool:
    return days is not None and entry.age_days is not None and entry.age_days > days


def _is_unused(entry: CacheEntry) -> bool:
    from .engines.installed import is_of_installed_version

    return entry.manifest is None or not is_of_installed_version(entry.manifest)


def _described(entry: CacheEntry) -> dict[str, Any]:
    manifest = asdict(entry.manifest) if entry.manifest else None
    return {
        "path": str(entry.path), "bytes": entry.bytes, "kernel_bytes": entry.kernel_bytes, "age_days": entry.age_days,
        "state": entry.problem or "ok", "manifest": manifest,
    }  # fmt: skip


def _cells(entry: CacheEntry) -> tuple[str, str, str, str, str]:
    """Graph, backend, precision, profile, GPU."""
    key = entry.manifest.key if entry.manifest else {}
    graph, profile = str(key.get("graph", entry.name[:12])), str(key.get("profile", ""))
    if entry.manifest and entry.manifest.kind == "onnx":
        return graph, "onnx", "fp16" if key.get("half") else "fp32", profile, ""
    if entry.manifest and entry.manifest.kind == "trace":
        return graph, "trace", "", "", ""
    gpu = " ".join(str(key[name]) for name in ("gpu_name", "compute_capability") if key.get(name))
    backend = f"{key.get('backend', '')} {key.get('backend_version', '')}".strip()
    return graph, backend, str(key.get("precision", "")), profile, gpu


def _title(entry: CacheEntry) -> str:
    return " ".join(dict.fromkeys(text for text in (*_cells(entry), entry.path.name) if text))


def _age(entry: CacheEntry) -> str:
    days = entry.age_days
    if days is None:
        return ""
    return f"{days:.0f} d" if days >= 1 else f"{days * 24:.0f} h" if days * 24 >= 1 else f"{days * 1440:.0f} min"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
