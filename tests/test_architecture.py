"""Rules about imports, names, docstrings and READMEs of the package."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    path
    for folder in ("difftrain", "recipes", "launch")
    for path in sorted((ROOT / folder).rglob("*.py"))
    # These two are links to recipes/ and conf/.
    if not {"difftrain/recipes", "difftrain/conf"} & {str(path.relative_to(ROOT).parent)}
]
LARGE_LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "vllm",
    "pandas",
    "matplotlib",
    "datasets",
)
STAGES = ("data", "difficulty", "probe", "select", "train", "evaluate", "report")
"""In order: a stage may import only earlier stages. The probe, which generates responses to measure
difficulty, comes after difficulty: its formulas decide when a sample has enough responses."""
VAGUE_MODULES = {"utils", "helpers", "common", "misc", "core", "base"}
VAGUE_CLASSES = ("Manager", "Factory", "Handler", "Registry", "Builder", "Wrapper")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_names(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def modules_below(package: str) -> list[Path]:
    return sorted((ROOT / "difftrain" / package).rglob("*.py"))


def stage_of(dotted_name: str) -> str | None:
    """The stage of a module; None if it is in no stage."""
    parts = dotted_name.split(".")
    is_stage = len(parts) > 1 and parts[0] == "difftrain" and parts[1] in STAGES
    return parts[1] if is_stage else None


def test_no_two_public_classes_share_a_name() -> None:
    files_by_class = defaultdict(list)
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files_by_class[node.name].append(name_of(path))
            # NAME = StrEnum("NAME", [...]) also defines a class.
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("StrEnum("):
                files_by_class[ast.unparse(node.targets[0])].append(name_of(path))
    assert {name: files for name, files in files_by_class.items() if len(files) > 1} == {}


@pytest.mark.parametrize("package", ["difficulty", "select"])
def test_difficulty_and_select_import_only_numpy_and_modules_without_side_effects(
    package: str,
) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "difftrain"}
    for path in modules_below(package):
        used = {name.split(".")[0] for name in imported_names(path)}
        assert used <= allowed, f"{name_of(path)} imports {sorted(used - allowed)}"
        ours = {name for name in imported_names(path) if name.startswith("difftrain.")}
        pure = ("records", "seeds", "config", "difficulty", "select")  # no side effects
        impure = {name for name in ours if name.split(".")[1] not in pure}
        assert not impure, f"{name_of(path)} imports {sorted(impure)}"


@pytest.mark.parametrize("module", ["difftrain", "difftrain.cli", "difftrain.config.run_config"])
def test_settings_and_the_command_line_import_no_large_library(module: str) -> None:
    imported = f"[name for name in {LARGE_LIBRARIES!r} if name in sys.modules]"
    code = f"import sys, {module}; print({imported})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_only_training_communicates_between_processes() -> None:
    for path in FILES:
        if "difftrain/train" not in name_of(path):
            assert "torch.distributed" not in path.read_text(), name_of(path)


def test_no_stage_imports_a_later_one() -> None:
    for path in FILES:
        stage = stage_of(name_of(path).removesuffix(".py").replace("/", "."))
        if stage is None:
            continue
        later = STAGES[STAGES.index(stage) + 1 :]
        forbidden = {name for name in imported_names(path) if stage_of(name) in later}
        assert not forbidden, f"{name_of(path)} imports {sorted(forbidden)}"


def test_no_module_executes_text_or_code_that_comes_with_a_model() -> None:
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "sympify"), name_of(path)
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), name_of(path)
                assert node.value.value is False, name_of(path)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_names_have_docstrings_and_are_not_vague(path: Path) -> None:
    tree = tree_of(path)
    assert not path.read_text() or ast.get_docstring(tree), "a module without a docstring"
    assert not {*path.relative_to(ROOT).with_suffix("").parts} & VAGUE_MODULES
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.ClassDef):
            assert not node.name.endswith(VAGUE_CLASSES), node.name


def test_package_readmes_have_fewer_than_400_words() -> None:
    for path in (ROOT / "difftrain").rglob("README.md"):
        assert len(path.read_text().split()) < 400, path


@pytest.mark.parametrize(
    "stage", ["data", "probe", "difficulty", "select", "train", "evaluate", "report", "export"]
)
def test_every_stage_has_a_readme(stage: str) -> None:
    assert (ROOT / "difftrain" / stage / "README.md").is_file()


def test_docs_vocabulary_is_up_to_date() -> None:
    script = ROOT / "tools" / "vocabulary.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
