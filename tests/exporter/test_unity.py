"""The Unity script is C# without a syntax error, and sets what its README says. It cannot run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "exporter" / "unity" / "FitDiffImporter.cs"


@pytest.fixture(scope="module")
def tree() -> Any:
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip("tree_sitter_c_sharp")
    return tree_sitter.Parser(tree_sitter.Language(grammar.language())).parse(SCRIPT.read_bytes())


def nodes(node: Any) -> list[Any]:
    return [node, *(below for child in node.children for below in nodes(child))]


def test_it_parses(tree: Any) -> None:
    bad = [(n.type, n.start_point) for n in nodes(tree.root_node) if n.is_error or n.is_missing]
    assert bad == []


def test_the_parser_would_find_a_mistake(tree: Any) -> None:
    from tree_sitter import Language, Parser
    from tree_sitter_c_sharp import language

    broken = Parser(Language(language())).parse(SCRIPT.read_bytes().replace(b"{", b"", 1))
    assert broken.root_node.has_error


def test_unity_calls_what_is_there(tree: Any) -> None:
    methods = {
        n.child_by_field_name("name").text.decode(): [
            p for p in nodes(n.child_by_field_name("parameters")) if p.type == "parameter"
        ]
        for n in nodes(tree.root_node)
        if n.type == "method_declaration"
    }
    # Messages that Unity finds by name and number of parameters.
    assert len(methods["OnPreprocessTexture"]) == 0
    assert len(methods["OnPostprocessAllAssets"]) == 4
    (base,) = [n for n in nodes(tree.root_node) if n.type == "base_list"]
    assert base.text == b": AssetPostprocessor"


def test_normal_maps_are_linear_and_green_up(tree: Any) -> None:
    sets = {
        n.child_by_field_name("left").text.decode(): n.child_by_field_name("right").text.decode()
        for n in reversed(nodes(tree.root_node))
        if n.type == "assignment_expression"
    }
    assert sets["importer.textureType"] == "TextureImporterType.NormalMap"
    assert sets["importer.sRGBTexture"] == "false"
    assert sets["importer.flipGreenChannel"] == "GreenDown.IsMatch(name)"
