"""Whole runs with a Qwen3-VL, from the probe with all measures to the report and the checkpoint."""

import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.pipeline import chain
from difftrain.pipeline.coordination import World

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # not a package

import tiny_families  # noqa: E402

SETTINGS = (
    "debug=smoke", "model.dtype=float32", "data.num_samples=40", "probe.max_new_tokens=20",
    "grpo.max_completion_length=20", "grpo.gradient_checkpointing=false", "evaluate.limit=4",
    "evaluate.max_new_tokens=20",
)  # fmt: skip
RECIPES = {
    "grpo_mid_hard": ("difficulty=all", "probe.retest_samples=0"),
    "rap": ("difficulty.cde.lambda_c=-0.5",),  # so that a model of little skill keeps samples
}


def tensor_names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {*file.keys()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-VL that answers in the format, often wrongly."""
    folder = tiny_families.build("qwen3_vl", tmp_path_factory.mktemp("model") / "qwen3_vl")
    tiny_families.teach(folder, steps=160)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_recipe_runs_from_the_probe_to_the_report(
    recipe: str, model: Path, tmp_path: Path
) -> None:
    overrides = [*SETTINGS, *RECIPES[recipe], f"recipe={recipe}", f"model.name={model}"]
    config = resolve(compose_config([*overrides, f"output_dir={tmp_path}"]))
    assert config.data.token_side == 32
    run = chain.train(config, World(), [])
    report = json.loads((run / "report.json").read_text())
    counts = report["counts"]
    assert sum(counts["strata"].values()) + counts["quarantined"] == 40
    assert counts["strata"]["unsolved"] < 40
    assert "The strata are uncalibrated" in (run / "report.md").read_text()
    assert tensor_names(run / "checkpoint") == tensor_names(model)
