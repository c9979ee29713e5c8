"""SFT then GRPO on one process, and on two with ZeRO-2 or ZeRO-3, with and without LoRA.

The tests run the program two_stages.py, which compares each trained model with its checkpoint.
"""

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
ACCELERATE = ROOT / "launch" / "accelerate"
LORA = ("sft.lora.rank=4", "grpo.lora.rank=4", "grpo.gradient_checkpointing=true")
pytestmark = pytest.mark.slow
# How much a logit of the saved checkpoint may differ from the trained model's.
FLOAT32_ROUNDING = 1e-4
LORA_ROUNDING = 1e-3  # merging the adapter into the weights rounds once more
BFLOAT16_ROUNDING = 0.2  # the trained model computes in bfloat16, its checkpoint in float32


def run_two_stages(out: Path, *overrides: str, accelerate_config: str | None = None) -> dict:
    """The result of the program two_stages.py, started by python or by accelerate."""
    program = [str(ROOT / "tests" / "train" / "two_stages.py"), str(out), *overrides]
    launcher = [sys.executable]
    if accelerate_config:
        config_file = str(ACCELERATE / accelerate_config)
        launcher = [str(BIN / "accelerate"), "launch", "--config_file", config_file]
    path = f"{BIN}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
             "PYTHONPATH": str(ROOT)}  # fmt: skip
    done = subprocess.run([*launcher, *program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "gradients reached: language model; frozen: vision tower, projector" in done.stderr
    return json.loads((out / "result.json").read_text())


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The weights, without the copy of the tied head that ZeRO-2 writes beside the embedding."""
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("lm_head.weight", None)
    assert head is None or torch.equal(head, weights["model.embed_tokens.weight"])
    return weights


def changed_parts(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts in which at least one weight differs."""
    assert before.keys() == after.keys()
    names = [
        key for key in before if not torch.equal(before[key], after[key].to(before[key].dtype))
    ]
    return {"vision" if "visual" in name else "language" for name in names}


def check_checkpoints(
    out: Path, result: dict, tolerance: float, frozen_in_grpo: bool = False
) -> None:
    """Assert that each checkpoint is complete and generates what the trained model generated.

    Assert also that exactly the trained parts have changed. The vision tower is frozen in SFT, and
    with `frozen_in_grpo` in GRPO too.
    """
    for name in ("sft", "grpo"):
        assert resolve.missing_part(out / name / "checkpoint") is None
        assert result[name]["loaded"] == result[name]["trained"]
        assert result[name]["max_difference"] < tolerance
    base, sft, grpo = (tensors(folder) for folder in (
        SHIPPED["tiny"], out / "sft" / "checkpoint", out / "grpo" / "checkpoint"
    ))  # fmt: skip
    assert result["frozen"] == ["vision tower", "projector"]
    assert changed_parts(base, sft) == {"language"}
    assert changed_parts(sft, grpo) == ({"language"} if frozen_in_grpo else {"vision", "language"})


def test_one_process_trains_both_stages_and_saves_what_it_trained(tmp_path: Path) -> None:
    check_checkpoints(tmp_path, run_two_stages(tmp_path), FLOAT32_ROUNDING)


def test_lora_leaves_the_vision_tower_unchanged_and_saves_a_merged_model(tmp_path: Path) -> None:
    check_checkpoints(tmp_path, run_two_stages(tmp_path, *LORA), LORA_ROUNDING, frozen_in_grpo=True)
    for name in ("sft", "grpo"):
        assert (tmp_path / name / "adapter" / "adapter_model.safetensors").is_file()


def test_mixed_precision_keeps_float32_weights_that_small_updates_change(tmp_path: Path) -> None:
    # At this learning rate an update is below the precision of bfloat16.
    overrides = ("model.dtype=bfloat16", "sft.learning_rate=1e-7", "grpo.learning_rate=1e-7")
    result = run_two_stages(tmp_path, *overrides)
    for name in ("sft", "grpo"):
        _, any_weight = tensors(tmp_path / name / "checkpoint").popitem()
        assert any_weight.dtype is torch.float32
    assert result["sft"]["max_difference"] < BFLOAT16_ROUNDING
    base, sft = tensors(SHIPPED["tiny"]), tensors(tmp_path / "sft" / "checkpoint")
    changed_keys = {key for key in base if not torch.equal(base[key].float(), sft[key])}
    assert changed_keys
    assert not any("visual" in key for key in changed_keys)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_two_processes_with_zero_train_both_stages_and_save_what_they_trained(
    tmp_path: Path, zero_stage: int
) -> None:
    result = run_two_stages(tmp_path, accelerate_config=f"zero{zero_stage}_cpu.yaml")
    check_checkpoints(tmp_path, result, FLOAT32_ROUNDING)


def test_two_processes_with_zero_3_train_both_stages_by_lora(tmp_path: Path) -> None:
    result = run_two_stages(tmp_path, *LORA, accelerate_config="zero3_cpu.yaml")
    check_checkpoints(tmp_path, result, LORA_ROUNDING, frozen_in_grpo=True)
