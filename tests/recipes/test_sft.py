"""A recipe with SFT before GRPO, run without interruption, and killed in both stages."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from difftrain.pipeline import parquet
from difftrain.records import Selection

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("debug=smoke", "data.num_samples=48", "model.batch_size=16", "recipe=sft_mid_grpo_hard",
         "select.sft_strata=[medium,easy]", "select.strata=[hard,unsolved]", "evaluate.limit=2",
         "sft.max_steps=6", "sft.save_steps=2", "grpo.max_steps=4", "grpo.save_steps=2",
         "grpo.per_device_train_batch_size=8")  # fmt: skip
pytestmark = pytest.mark.slow


def command(folder: Path, *overrides: str, launcher: str = "train") -> list[str]:
    program = str(ROOT / "launch" / f"{launcher}.py")
    return [sys.executable, program, *SMALL, f"output_dir={folder}", *overrides]


def run(*command_line: str) -> Path:
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a run that nothing interrupted."""
    return run(*command(tmp_path_factory.mktemp("undisturbed")))


def stage_folders(output_dir: Path) -> tuple[Path, Path]:
    """The folders of SFT and of GRPO."""
    (sft,) = (path.parent for path in output_dir.glob("train/*/sft_targets.json"))
    (grpo,) = (path for path in output_dir.glob("train/*") if path != sft)
    return sft, grpo


def weights_of(stage_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(stage_folder / "checkpoint" / "model.safetensors")


def test_the_report_shows_both_stages(undisturbed: Path) -> None:
    report = json.loads((undisturbed / "report.json").read_text())
    assert report["train_stages"] == "sft_then_grpo"
    output_dir = undisturbed.parents[1]  # the run folder is OUTPUT_DIR/run/NAME
    folders = (output_dir / "select").iterdir()
    selections = [row for folder in folders for row in parquet.read_rows(folder, Selection)]
    # The number of selected samples of each training stage.
    sizes = {stage: sum(row.stage == stage for row in selections) for stage in ("sft", "grpo")}
    assert report["counts"]["picks"] == sizes
    seconds, by_stage = report["cost"]["seconds"], report["cost"]["by_stage"]
    assert seconds["sft"] == by_stage["sft tuned"]["seconds"] > 0
    both = seconds["sft"] + by_stage["train tuned"]["seconds"]
    assert seconds["train"] == pytest.approx(both, abs=0.01)
    # The keys that the recipe's file sets, with the values of this run (see SMALL).
    assert report["recipe_difference"] == [
        "name=sft_mid_grpo_hard", "train_stages=sft_then_grpo", "select.sft_strata=[medium, easy]",
        "select.strata=[hard, unsolved]",
    ]  # fmt: skip
    assert "samples (SFT), then on" in (undisturbed / "report.md").read_text()


def test_grpo_starts_from_the_checkpoint_of_sft_and_the_run_folder_has_that_of_grpo(
    undisturbed: Path,
) -> None:
    sft, grpo = stage_folders(undisturbed.parents[1])
    content = json.loads((grpo / "manifest.json").read_text())
    assert content["inputs"]["model"] == sft.name
    AutoProcessor.from_pretrained(undisturbed / "checkpoint")
    AutoModelForImageTextToText.from_pretrained(undisturbed / "checkpoint")
    before, after = weights_of(sft), load_file(undisturbed / "checkpoint" / "model.safetensors")
    max_change = max(float((before[key] - after[key]).abs().max()) for key in before)
    # Four Adam steps with learning rate 1e-4. With Adam's default betas a step changes a weight by
    # at most 3.2 times the rate; the factor 5 leaves a margin.
    assert 0 < max_change < 4 * 1e-4 * 5


def kill_once_file_exists(child: subprocess.Popen, output_dir: Path, pattern: str) -> None:
    """Send SIGKILL as soon as a file matches this pattern."""
    while child.poll() is None and not list(output_dir.glob(pattern)):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(output_dir.glob(pattern))


def test_a_run_killed_in_sft_and_in_grpo_ends_with_the_same_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    undisturbed_output = undisturbed.parents[1]
    sft, grpo = stage_folders(undisturbed_output)
    output_dir = tmp_path / "output_dir"
    # The copy lacks training and all later stages.
    ignored = shutil.ignore_patterns("train", "run", "responses", "evaluate")
    shutil.copytree(undisturbed_output, output_dir, ignore=ignored)
    for stage, step in ((sft, 2), (sft, 4), (grpo, 2)):  # steps at which a checkpoint is saved
        child = subprocess.Popen(
            command(output_dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        pattern = f"train/{stage.name}/checkpoints/checkpoint-{step}/trainer_state.json"
        kill_once_file_exists(child, output_dir, pattern)
        assert not (output_dir / "train" / stage.name / "manifest.json").exists()
    run(*command(output_dir))
    for stage in (sft, grpo):
        expected, resumed = weights_of(stage), weights_of(output_dir / "train" / stage.name)
        assert all(torch.equal(expected[key], resumed[key]) for key in expected)
        log = (output_dir / "train" / stage.name / "train_log.jsonl").read_text().splitlines()
        count = json.loads((stage / "manifest.json").read_text())["counts"]["steps"]
        assert [json.loads(line)["step"] for line in log] == list(range(1, count + 1))


def test_correct_rollouts_become_targets_in_the_format_that_the_reward_expects(
    undisturbed: Path, tmp_path: Path
) -> None:
    output_dir = tmp_path / "output_dir"
    ignored = shutil.ignore_patterns("train", "run")
    shutil.copytree(undisturbed.parents[1], output_dir, ignore=ignored)
    run(*command(output_dir, "sft.targets=rollouts", "sft.max_steps=1", "grpo.max_steps=1"))
    (sft,) = (path.parent for path in output_dir.glob("train/*/sft_targets.json"))
    targets = json.loads((sft / "sft_targets.json").read_text())["targets"]
    assert targets
    assert all(
        text.startswith("<think>") and text.endswith("</answer>") for text in targets.values()
    )


def test_an_incomplete_checkpoint_is_reported_with_exit_code_2(
    undisturbed: Path, tmp_path: Path
) -> None:
    output_dir = tmp_path / "output_dir"
    shutil.copytree(undisturbed.parents[1], output_dir, ignore=shutil.ignore_patterns("run"))
    sft, _ = stage_folders(output_dir)
    (sft / "checkpoint" / "model.safetensors").write_bytes(b"cut")
    done = subprocess.run(command(output_dir), capture_output=True, text=True)
    assert done.returncode == 2
    assert "is incomplete: model.safetensors is cut short" in done.stderr
    assert "Traceback" not in done.stderr
    incomplete = sft / "checkpoint"
    done = subprocess.run(
        command(output_dir, "model=tiny", f"model.name={incomplete}", launcher="evaluate"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "the folder is incomplete: model.safetensors is cut short" in done.stderr
