"""A module imports only from lower layers; stages never import one another."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = {"probe", "difficulty", "select", "train", "evaluate", "report", "export"}
LAYERS = [
    {"records", "seeds", "world", "lineage", "heartbeat", "weights"},
    {"artifacts", "stored", "config"},
    {"grade", "data", "shapes", "model", "settings", "places", "plan"},
    STAGES,
    {"recipes"},
    {"launch"},
]
THIRD_PARTY = {
    "records": set(),
    "seeds": set(),
    "world": set(),
    "lineage": set(),
    "heartbeat": set(),
    "weights": set(),
    "artifacts": {"pyarrow"},
    "stored": {"pyarrow"},
    "config": set(),
    "settings": {"omegaconf"},
    "places": set(),
    "plan": set(),
    "grade": {"math_verify", "rapidfuzz", "scipy", "numpy", "sympy"},
    "data": {"PIL", "numpy", "pyarrow", "httpx", "huggingface_hub"},
    "shapes": {"PIL", "numpy", "torch", "transformers", "tokenizers"},
    "model": {"torch", "transformers", "vllm", "httpx", "PIL", "numpy"},
    "probe": {"torch", "numpy", "PIL", "tqdm"},
    "difficulty": {"numpy"},
    "select": {"numpy"},
    "train": {"torch", "trl", "accelerate", "peft", "transformers", "datasets", "tqdm", "PIL"},
    "evaluate": {"httpx", "numpy", "scipy", "PIL", "tqdm", "datasets"},
    "report": {
        "pandas",
        "matplotlib",
        "jinja2",
        "wandb",
        "numpy",
        "PIL",
        "tensorboard",
        "markupsafe",
    },
    "export": {"pyarrow", "datasets", "matplotlib", "httpx", "huggingface_hub"},
    "recipes": set(),
    "launch": {"hydra", "omegaconf"},
}


def files() -> list[Path]:
    return [
        path
        for folder in ("difftrain", "recipes", "launch")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.stat().st_size
    ]


def place_of(module: str) -> str:
    """The name in LAYERS of a dotted module: every config.py and *_config.py is `config`, stages
    by folder."""
    parts = module.split(".")
    if parts[0] in ("recipes", "launch"):
        return parts[0]
    return "config" if parts[-1].split("_")[-1] == "config" and len(parts) > 2 else parts[1]


def layer_of(module: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if place_of(module) in names)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = node.module.split(".")[0] in ("difftrain", "recipes", "launch")
            modules = {name for name in within if ours and is_module(name)}
            found |= modules or {node.module}
    return found


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    own = module_of(path)
    if own == "difftrain":
        return
    for other in imported(path):
        if not other.startswith(("difftrain.", "recipes", "launch")):
            continue
        assert layer_of(other) <= layer_of(own), f"{own} imports {other}, which lies above it"
        both_stages = place_of(own) in STAGES and place_of(other) in STAGES
        assert not both_stages or place_of(own) == place_of(other), f"{own} imports {other}"


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_a_module_uses_only_the_libraries_of_its_layer(path: Path) -> None:
    import sys

    own = module_of(path)
    if own == "difftrain":
        return
    foreign = {
        name.split(".")[0]
        for name in imported(path)
        if name.split(".")[0] not in {"difftrain", "recipes", "launch", *sys.stdlib_module_names}
    }
    assert foreign <= THIRD_PARTY[place_of(own)]
