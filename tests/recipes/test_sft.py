"""A row with SFT before GRPO, whole and killed in either stage. Slow lane."""

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


def command(folder: Path, *words: str, launcher: str = "train") -> list[str]:
    program = str(ROOT / "launch" / f"{launcher}.py")
    return [sys.executable, program, *SMALL, f"output_dir={folder}", *words]


def run(*command_line: str) -> Path:
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an undisturbed row."""
    return run(*command(tmp_path_factory.mktemp("whole")))


def stages(store: Path) -> tuple[Path, Path]:
    """The folders of SFT and of GRPO."""
    (sft,) = (path.parent for path in store.glob("train/*/sft_targets.json"))
    (grpo,) = (path for path in store.glob("train/*") if path != sft)
    return sft, grpo


def tensors(stage: Path) -> dict[str, torch.Tensor]:
    return load_file(stage / "checkpoint" / "model.safetensors")


def test_the_report_shows_both_stages(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    assert report["train_stages"] == "sft_then_grpo"
    folders = (whole.parents[1] / "select").iterdir()
    picks = [pick for folder in folders for pick in parquet.read_rows(folder, Selection)]
    counted = {arm: sum(pick.stage == arm for pick in picks) for arm in ("sft", "grpo")}
    assert report["counts"]["picks"] == counted
    seconds, by_stage = report["cost"]["seconds"], report["cost"]["by_stage"]
    assert seconds["sft"] == by_stage["sft tuned"]["seconds"] > 0
    both = seconds["sft"] + by_stage["train tuned"]["seconds"]
    assert seconds["train"] == pytest.approx(both, abs=0.01)
    assert report["recipe_difference"] == [
        "name=sft_mid_grpo_hard", "train_stages=sft_then_grpo", "select.sft_strata=[medium, easy]",
        "select.strata=[hard, unsolved]",
    ]  # fmt: skip
    assert "samples (SFT), then on" in (whole / "report.md").read_text()


def test_grpo_starts_where_sft_ended_and_the_run_has_its_checkpoint(whole: Path) -> None:
    sft, grpo = stages(whole.parents[1])
    content = json.loads((grpo / "manifest.json").read_text())
    assert content["inputs"]["model"] == sft.name
    AutoProcessor.from_pretrained(whole / "checkpoint")
    AutoModelForImageTextToText.from_pretrained(whole / "checkpoint")
    ended, last = tensors(sft), load_file(whole / "checkpoint" / "model.safetensors")
    moved = max(float((ended[key] - last[key]).abs().max()) for key in ended)
    assert 0 < moved < 4 * 1e-4 * 5


def killed_at(child: subprocess.Popen, store: Path, pattern: str) -> None:
    """SIGKILL once a file of this pattern is there."""
    while child.poll() is None and not list(store.glob(pattern)):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(store.glob(pattern))


def test_killed_in_sft_and_in_grpo_it_ends_with_the_same_weights(
    whole: Path, tmp_path: Path
) -> None:
    before = whole.parents[1]
    sft, grpo = stages(before)
    store = tmp_path / "store"
    ignored = shutil.ignore_patterns("train", "run", "responses", "evaluate")
    shutil.copytree(before, store, ignore=ignored)
    for stage, step in ((sft, 2), (sft, 4), (grpo, 2)):
        child = subprocess.Popen(
            command(store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        pattern = f"train/{stage.name}/checkpoints/checkpoint-{step}/trainer_state.json"
        killed_at(child, store, pattern)
        assert not (store / "train" / stage.name / "manifest.json").exists()
    run(*command(store))
    for stage in (sft, grpo):
        one, two = tensors(stage), tensors(store / "train" / stage.name)
        assert all(torch.equal(one[key], two[key]) for key in one)
        log = (store / "train" / stage.name / "train_log.jsonl").read_text().splitlines()
        count = json.loads((stage / "manifest.json").read_text())["counts"]["steps"]
        assert [json.loads(line)["step"] for line in log] == list(range(1, count + 1))


def test_correct_rollouts_are_targets_in_the_rewards_format(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ignored = shutil.ignore_patterns("train", "run")
    shutil.copytree(whole.parents[1], store, ignore=ignored)
    run(*command(store, "sft.targets=rollouts", "sft.max_steps=1", "grpo.max_steps=1"))
    (sft,) = (path.parent for path in store.glob("train/*/sft_targets.json"))
    taught = json.loads((sft / "sft_targets.json").read_text())["targets"]
    assert taught
    assert all(
        text.startswith("<think>") and text.endswith("</answer>") for text in taught.values()
    )


def test_an_incomplete_checkpoint_is_reported_with_exit_code_2(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(whole.parents[1], store, ignore=shutil.ignore_patterns("run"))
    sft, _ = stages(store)
    (sft / "checkpoint" / "model.safetensors").write_bytes(b"cut")
    done = subprocess.run(command(store), capture_output=True, text=True)
    assert done.returncode == 2
    assert "is incomplete: model.safetensors is cut short" in done.stderr
    assert "Traceback" not in done.stderr
    broken = sft / "checkpoint"
    done = subprocess.run(
        command(store, "model=tiny", f"model.name={broken}", launcher="evaluate"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "the folder is incomplete: model.safetensors is cut short" in done.stderr
