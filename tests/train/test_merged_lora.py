"""A merged LoRA adapter gives a checkpoint that other tools read as they read the source model."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.smolvlm import processing_smolvlm

from difftrain.config.model import Dtype, ModelConfig
from difftrain.config.train import LoraConfig
from difftrain.model import family_check
from difftrain.model.loading import load
from difftrain.records import Sample
from difftrain.train import checkpointing, param_groups

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # not a package

import tiny_families  # noqa: E402

FAMILIES = [name for name, family in tiny_families.FAMILIES.items() if not family.refused]
FAST = ("qwen2_5_vl", "qwen3_vl", "internvl", "gemma3")
"""The families whose checkpoints differ most; the slow lane has all."""
PIXELS = 56 * 56, 224 * 224


def merged_checkpoint(source: Path, folder: Path) -> tuple[Any, Path]:
    """The model of `source` with a random adapter, and the checkpoint with the adapter merged."""
    config = ModelConfig(name=str(source), dtype=Dtype.float32)
    peft = param_groups.peft_config("grpo", LoraConfig(rank=2), config)
    assert peft is not None
    base = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)
    adapted: Any = get_peft_model(base, peft)  # pyright: ignore[reportArgumentType]
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # peft begins with zeros, which would change nothing
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(folder / "adapter")
    checkpoint = folder / "checkpoint"
    param_groups.merge_adapter(config, folder / "adapter", checkpoint)
    checkpointing.save_processor(AutoProcessor.from_pretrained(source), checkpoint)
    return adapted.eval(), checkpoint


def tensors(folder: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a folder's weights, by its name."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in FAMILIES]
)
def test_a_merged_adapter_has_the_sources_tensors_and_the_adapted_models_logits(
    name: str, tmp_path: Path, shapes_samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    # SmolVLM's processor asks for this package, which only videos need.
    monkeypatch.setattr(processing_smolvlm, "num2words", str)
    source = tiny_families.build(name, tmp_path / "source")
    adapted, checkpoint = merged_checkpoint(source, tmp_path)
    assert tensors(checkpoint) == tensors(source)
    templates = [AutoProcessor.from_pretrained(f).chat_template for f in (source, checkpoint)]
    assert templates[0] == templates[1]
    assert (checkpoint / "preprocessor_config.json").is_file()
    loaded = load(ModelConfig(name=str(checkpoint), dtype=Dtype.float32), *PIXELS)
    request = family_check.view_requests(shapes_samples)["image"]
    inputs = family_check.reference_inputs(loaded, request)
    with torch.inference_mode():
        merged, expected = loaded.model(**inputs).logits, adapted(**inputs).logits
        with adapted.disable_adapter():
            plain = adapted(**inputs).logits
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=0)
    assert (plain - expected).abs().max() > 1e-2
