"""Small files, short functions, few parameters and imports, no drawers."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DRAWERS = {"utils", "helpers", "common", "misc", "core", "base"}
OFFICES = ("Manager", "Factory", "Handler", "Registry", "Builder", "Wrapper")
PARAMETERS_BY_CONTRACT = {("rap", "choose"): 7}
"""The design fixes this signature: four columns, the draws and the paper's two thresholds."""
FILES = [
    path
    for folder in ("difftrain", "recipes", "launch")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def foreign_imports(tree: ast.Module) -> set[str]:
    """The modules imported at the top that are not the standard library's."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 300
    assert len(foreign_imports(tree)) <= 12
    for each in functions(tree):
        assert each.end_lineno - each.lineno < 60, each.name
        parameters = len(each.args.args) + len(each.args.kwonlyargs)
        assert parameters <= PARAMETERS_BY_CONTRACT.get((path.stem, each.name), 6), each.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_explained_and_no_class_is_an_office(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not path.read_text() or ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.ClassDef):
            assert not node.name.endswith(OFFICES)


def test_there_is_no_drawer() -> None:
    for path in FILES:
        parts = {*path.relative_to(ROOT).with_suffix("").parts}
        assert not parts & DRAWERS, path


def test_a_recipe_file_is_under_eighty_lines_of_method() -> None:
    for name in ("grpo", "sft_then_grpo", "choosing", "benchmarks"):
        assert len((ROOT / "recipes" / f"{name}.py").read_text().splitlines()) < 80


def test_stage_readmes_are_short() -> None:
    for path in (ROOT / "difftrain").rglob("README.md"):
        assert len(path.read_text().split()) < 400, path


def test_every_stage_has_settings_and_a_page() -> None:
    for stage in ("data", "probe", "difficulty", "select", "train", "evaluate", "report", "export"):
        assert (ROOT / "difftrain" / stage / "config.py").is_file()
        assert (ROOT / "difftrain" / stage / "README.md").is_file()


def test_nothing_evaluates_text_as_code() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
