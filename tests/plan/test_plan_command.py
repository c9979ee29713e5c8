"""launch/plan.py prints settings and estimates, and with check=model checks the model.

The estimates are for the probe, which generates responses to the samples to measure their
difficulty (pism, cmab, cde, ace, drm), and for training.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import manifest
from difftrain.pipeline.paths import RunPaths
from difftrain.probe.schedule import requirements

ROOT = Path(__file__).resolve().parents[2]


def run_plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "plan.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def test_without_check_model_the_plan_shows_settings_and_loads_no_model(tmp_path: Path) -> None:
    done = run_plan(f"output_dir={tmp_path}", "recipe=grpo_mid", "seed=7")
    assert done.returncode == 0, done.stderr
    assert "\nseed=7\n" in done.stdout
    assert "settings in the recipe's file: name=grpo_mid, select.strata=[medium]" in done.stdout
    folder = Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))
    assert json.loads((folder / "settings.json").read_text())["seed"] == 7
    assert "✓" not in done.stdout  # check=model prints it for each passed check


def test_samples_responses_hours_and_memory_are_estimated_without_a_probe(
    tmp_path: Path,
) -> None:
    done = run_plan(
        f"output_dir={tmp_path}",
        "data.num_samples=40",
        "difficulty=all",
        "plan.samples_per_second=0.1",
    )
    assert done.returncode == 0, done.stderr
    assert "samples: 40 of 40 rows, 0 quarantined (perception 18, reasoning 22)" in done.stdout
    assert (
        "for pism, cmab, cde, ace, drm and probe.retest_samples=100, estimated from the stratum "
        "shares of Qi et al. 2026" in done.stdout
    )
    assert "alone, with the stratum shares of Qi et al. 2026: pism" in done.stdout
    # For 40 samples: cde 5 responses with and 5 without the image, ace 1, drm 5. The hours are 40
    # samples / 0.1 samples a second / 3600.
    assert "cde 400, ace 40, drm 200" in done.stdout
    assert "hours: 0.11 for the probe, at 0.1 samples a second" in done.stdout
    assert "memory, generation:" in done.stdout
    assert "ZeRO 3" in done.stdout
    assert not list(tmp_path.glob("probe/*"))


def test_the_plan_has_the_items_of_the_evaluation_and_the_judge_s_replies(tmp_path: Path) -> None:
    arguments = [f"output_dir={tmp_path}", "data.num_samples=40", "control=random"]
    done = run_plan(*arguments, "evaluate.benchmarks=rap", "evaluate.limit=null")
    assert done.returncode == 0, done.stderr
    assert "evaluation: 8,845 items of 6 benchmarks (MathVista 1,000, MMStar 1,500, MathVerse" in (
        done.stdout
    )
    assert "for each checkpoint (base, tuned, control)" in done.stdout
    # At least: one for MMVet's 218, MathVerse's 3,940 and LogicVista's 447 items. If rules grade
    # nothing: two for MathVerse, one for each other item. At most: 5 (MathVerse 10, multiple
    # choice 3) for each item.
    assert (
        "with evaluate.judge=endpoint, 4,605 replies for each checkpoint if rules grade all that "
        "they may, 12,785 if they grade nothing, 57,445 if no reply is usable" in done.stdout
    )
    limited = run_plan(*arguments, "evaluate.benchmarks=[shapes/WeMath,OCRBench]")
    assert "evaluation: 200 items of 2 benchmarks" in limited.stdout
    assert "\njudge: " not in limited.stdout  # rules alone score OCRBench


def test_training_memory_is_listed_for_each_stage_and_for_lora(tmp_path: Path) -> None:
    arguments = ["data.num_samples=40", f"output_dir={tmp_path}", "recipe=sft_mid_grpo_hard"]
    done = run_plan(*arguments, "grpo.lora.rank=16")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("memory, training")]
    assert [line.partition(" on ")[0].partition(" (")[0] for line in lines] == [
        "memory, training SFT", "memory, training GRPO by LoRA",
    ]  # fmt: skip


def test_the_estimate_uses_a_pilots_numbers_if_there_is_a_pilot(tmp_path: Path) -> None:
    arguments = ["data.num_samples=40", "plan.pilot=8", "difficulty=pism", f"output_dir={tmp_path}"]
    config = resolve(compose_config(arguments))
    pilot = replace(config, data=replace(config.data, limit=8))
    counts = {"samples": 8, "generations": 160, "tokens": 3200}
    counts["settled"] = [requirements(config.difficulty, config.probe).describe(8)]
    folder = RunPaths(pilot).probe
    manifest.write_manifest(folder, settings={}, inputs={}, seconds=4.0, counts=counts)
    done = run_plan(*arguments)
    assert done.returncode == 0, done.stderr
    # The pilot of 8 samples took 4 seconds, with 20 responses per sample of 20 tokens each.
    # So 40 samples need 800 responses, 16,000 tokens and 20 seconds.
    assert "about 800 for pism, cmab, estimated from a pilot of 8 samples" in done.stdout
    assert "16,000 response tokens (20 each in the pilot)" in done.stdout
    assert "hours: 0.01 for the probe, at the pilot's 2 samples a second" in done.stdout


def test_zero_samples_per_second_and_zero_gpus_are_refused() -> None:
    done = run_plan("plan.samples_per_second=0", "plan.gpus=0")
    assert done.returncode == 2
    assert "plan.samples_per_second=0.0: must lie above 0" in done.stderr
    assert "plan.gpus=0: must be at least 1" in done.stderr


def test_a_plan_needs_no_torch() -> None:
    code = "import sys, difftrain.plan; print([m for m in sys.modules if m in ('torch', 'trl')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_error_for_a_misspelt_check_suggests_the_right_one() -> None:
    done = run_plan("check=modl")
    assert done.returncode == 2
    assert "check=modl: no such check; did you mean model?" in done.stderr


@pytest.mark.slow
def test_check_model_passes_the_tiny_model_and_names_the_cause_for_a_broken_one(
    tmp_path: Path,
) -> None:
    done = run_plan("check=model", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("✓") == 8  # all checks
    broken = tmp_path / "broken"
    shutil.copytree(SHIPPED["tiny"], broken)
    template = broken / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|image_pad|>", ""))
    done = run_plan("check=model", f"output_dir={tmp_path}", "model=tiny", f"model.name={broken}")
    assert done.returncode == 1
    assert "chat template has the image: 0 placeholders for 1 images" in done.stderr
    assert "Traceback" not in done.stderr
