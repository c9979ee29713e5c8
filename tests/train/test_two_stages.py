"""SFT then GRPO by one process, by two with ZeRO-2 and ZeRO-3, in full and by LoRA. Slow lane."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from difftrain.model import resolve
from difftrain.model.resolve import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ZERO = ROOT / "launch" / "accelerate"
LORA = ("sft.lora.rank=4", "grpo.lora.rank=4", "grpo.gradient_checkpointing=true")
pytestmark = pytest.mark.slow


def run(out: Path, *words: str, sharded: str | None = None) -> dict:
    """The result of two_stages.py."""
    program = [str(ROOT / "tests" / "train" / "two_stages.py"), str(out), *words]
    by = [sys.executable]
    if sharded:
        by = [str(BIN / "accelerate"), "launch", "--config_file", str(ZERO / sharded)]
    path = f"{BIN}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
             "PYTHONPATH": str(ROOT)}  # fmt: skip
    done = subprocess.run([*by, *program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "gradients reached: language model; frozen: vision tower, projector" in done.stderr
    return json.loads((out / "result.json").read_text())


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The weights. ZeRO-2 writes the head that is tied to the embedding a second time."""
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("lm_head.weight", None)
    assert head is None or torch.equal(head, weights["model.embed_tokens.weight"])
    return weights


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts of which any bit is another."""
    assert before.keys() == after.keys()
    names = [
        key for key in before if not torch.equal(before[key], after[key].to(before[key].dtype))
    ]
    return {"vision" if "visual" in name else "language" for name in names}


def check_checkpoints(
    out: Path, result: dict, tolerance: float, frozen_in_grpo: bool = False
) -> None:
    """Each checkpoint is complete and responds as its trainer's model did; exactly the trained
    parts have changed."""
    for name in ("sft", "grpo"):
        assert resolve.missing_part(out / name / "checkpoint") is None
        assert result[name]["loaded"] == result[name]["trained"]
        assert result[name]["max_difference"] < tolerance
    base, sft, grpo = (tensors(each) for each in (
        SHIPPED["tiny"], out / "sft" / "checkpoint", out / "grpo" / "checkpoint"
    ))  # fmt: skip
    assert result["frozen"] == ["vision tower", "projector"]
    assert changed(base, sft) == {"language"}
    assert changed(sft, grpo) == ({"language"} if frozen_in_grpo else {"vision", "language"})


def test_one_process(tmp_path: Path) -> None:
    check_checkpoints(tmp_path, run(tmp_path), 1e-4)


def test_by_lora_the_vision_tower_stays_and_the_checkpoint_is_one_model(tmp_path: Path) -> None:
    check_checkpoints(tmp_path, run(tmp_path, *LORA), 1e-3, frozen_in_grpo=True)
    for name in ("sft", "grpo"):
        assert (tmp_path / name / "adapter" / "adapter_model.safetensors").is_file()


def test_mixed_precision_keeps_float32_weights_that_small_rates_still_move(tmp_path: Path) -> None:
    rate = ("model.dtype=bfloat16", "sft.learning_rate=1e-7", "grpo.learning_rate=1e-7")
    result = run(tmp_path, *rate)
    for name in ("sft", "grpo"):
        assert tensors(tmp_path / name / "checkpoint").popitem()[1].dtype is torch.float32
    assert result["sft"]["max_difference"] < 0.2
    base, sft = tensors(SHIPPED["tiny"]), tensors(tmp_path / "sft" / "checkpoint")
    moved = {key for key in base if not torch.equal(base[key].float(), sft[key])}
    assert moved
    assert not any("visual" in key for key in moved)


@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_that_share_the_optimizer_and_the_weights(tmp_path: Path, stage: int) -> None:
    result = run(tmp_path, sharded=f"zero{stage}_cpu.yaml")
    check_checkpoints(tmp_path, result, 1e-4)


def test_lora_under_zero_3(tmp_path: Path) -> None:
    result = run(tmp_path, *LORA, sharded="zero3_cpu.yaml")
    check_checkpoints(tmp_path, result, 1e-3, frozen_in_grpo=True)
