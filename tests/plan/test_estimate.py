"""The plan's estimates of responses and memory agree with a simulation and with real weights.

The responses are those of the probe, which draws up to 10 responses to a sample at each of 10 mask
ratios (shares of the image that are masked) to compute difficulty measures: PISM, CMAB, CDE, DRM.
The full grid is all 100. An estimate assumes that half of the responses are correct at a ratio that
passes. A sample's stratum is easy, medium, hard or unsolved.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from difftrain import plan
from difftrain.config.difficulty import DifficultyConfig, PismConfig, ProbeConfig, Until
from difftrain.config.model import FIXED_ROWS, ModelConfig
from difftrain.config.run_config import RunConfig
from difftrain.config.train import LORA_TARGETS, GrpoConfig, SharedPrompt
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import manifest
from difftrain.pipeline.paths import RunPaths
from difftrain.probe.schedule import next_draws, requirements
from difftrain.records import Measure, Stratum, TaskSet

PAPER_SAMPLES = {TaskSet.perception: 20_633, TaskSet.reasoning: 27_133}
"""The samples of Qi et al. 2026."""


def settings(
    measures: str = "pism", until: Until = Until.ratio
) -> tuple[DifficultyConfig, ProbeConfig]:
    """Default settings for these measures, by the first of which a run selects samples."""
    first, *others = map(Measure, measures.split())
    return DifficultyConfig(measure=first, extra_measures=others), ProbeConfig(until=until)


def responses(stratum: Stratum, measures: str, until: Until = Until.ratio) -> float:
    """The expected number of responses for a sample of this stratum."""
    return plan.responses_of(stratum, *settings(measures, until))


def test_qi_et_al_s_samples_need_about_an_eighth_of_the_full_grids_responses() -> None:
    # An easy sample needs 20 responses, a medium one 21 on average, a hard one 15, an unsolved 10.
    reasoning = plan.expected_responses(*settings(), {TaskSet.reasoning: 27_133})
    assert reasoning / (27_133 * 100) == pytest.approx(1 / 8, abs=0.01)
    # Perception samples need more responses than reasoning samples: fewer of them are unsolved.
    all_samples = plan.expected_responses(*settings(), PAPER_SAMPLES)
    assert all_samples / (sum(PAPER_SAMPLES.values()) * 100) == pytest.approx(0.145, abs=0.01)


@pytest.mark.parametrize("stratum", Stratum)
def test_expected_draws_match_a_simulation_of_the_schedule(stratum: Stratum) -> None:
    rng, total, num_simulations = random.Random(0), 0, 1500
    for _ in range(num_simulations):
        failing = rng.choice(plan.first_failing(stratum, range(0, 100, 10), PismConfig()))
        correct_RK = np.full((10, 10), -1, dtype=np.int8)  # mask ratios x draws; -1: not drawn
        while requested := next_draws(correct_RK):
            ((row, draw),) = requested
            correct_RK[row, draw] = row != failing and rng.random() < 0.5  # plan.PASS_CHANCE
            total += 1
    assert responses(stratum, "pism") == pytest.approx(total / num_simulations, rel=0.05)


def test_measures_share_the_responses_to_the_full_image() -> None:
    assert responses(Stratum.easy, "pism") == 20  # 2 until a correct one, at each of 10 ratios
    assert responses(Stratum.easy, "pism cmab") == 20  # CMAB uses PISM's first correct response
    assert responses(Stratum.easy, "pism drm") == 23  # DRM needs 5 with the full image, PISM has 2
    assert responses(Stratum.easy, "pism cde") == 28  # CDE as DRM, and 5 without the image
    assert responses(Stratum.unsolved, "pism drm") == 10  # all draws at ratio 0
    assert responses(Stratum.unsolved, "cmab") == 10
    assert responses(Stratum.easy, "cmab") == 2
    assert responses(Stratum.easy, "cde") == 10
    assert responses(Stratum.easy, "pism cde", Until.grid) == 105  # the grid, 5 without the image


def test_the_number_of_parameters_matches_the_weights_file() -> None:
    dims = plan.model_dims(str(SHIPPED["tiny"]))
    assert dims is not None
    with safe_open(SHIPPED["tiny"] / "model.safetensors", "numpy") as weights:
        names = list(weights.keys())
        sizes = {name: int(np.prod(weights.get_slice(name).get_shape())) for name in names}
    assert dims.parameters == pytest.approx(sum(sizes.values()), rel=0.02)
    tower = sum(size for name, size in sizes.items() if "visual" in name)
    assert dims.vision_parameters == pytest.approx(tower, rel=0.03)


def test_the_known_dimensions_of_the_7b_model_match_its_config() -> None:
    text = {
        "hidden_size": 3584, "num_hidden_layers": 28, "vocab_size": 152_064,
        "num_attention_heads": 28, "intermediate_size": 18_944, "num_key_value_heads": 4,
    }  # fmt: skip
    vision = {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32}
    counted = plan.dims_from_config(
        {"tie_word_embeddings": False, "text_config": text, "vision_config": vision}
    )
    known = plan.KNOWN_DIMS["Qwen/Qwen2.5-VL-7B-Instruct"]
    assert counted.parameters == pytest.approx(known.parameters, rel=0.01)
    assert counted.vision_parameters == pytest.approx(known.vision_parameters, rel=0.02)
    assert counted.cache_values == known.cache_values == 28_672


def test_training_memory_shrinks_with_each_zero_stage_by_the_formula() -> None:
    """A parameter has 2 bytes of weights, 2 of gradients and 12 of optimizer states."""
    dims = plan.KNOWN_DIMS["Qwen/Qwen2.5-VL-7B-Instruct"]
    batch = plan.TokenBatch(rows=4, prompt=1800, response=1024, pixels=1_254_400)

    def memory(gpus: int, frozen_vision: bool = False, **changes: bool) -> dict[int, float]:
        """Bytes on one GPU, by ZeRO stage."""
        options = {"reference": False, "checkpointing": True} | changes
        return plan.training_memory(dims, batch, gpus, frozen_vision=frozen_vision, **options)

    by_zero_stage = memory(8)
    assert by_zero_stage[0] > by_zero_stage[1] > by_zero_stage[2] > by_zero_stage[3]
    assert by_zero_stage[0] - by_zero_stage[3] == pytest.approx(16 * dims.parameters * 7 / 8)
    assert memory(1)[3] == memory(1)[0]
    assert memory(8, reference=True)[2] - by_zero_stage[2] == pytest.approx(2 * dims.parameters)
    assert by_zero_stage[2] - memory(8, frozen_vision=True)[2] == pytest.approx(
        14 * dims.vision_parameters / 8
    )
    assert memory(8, checkpointing=False)[3] > by_zero_stage[3]


def test_lora_saves_the_optimizer_memory_of_frozen_weights_and_the_reference_model() -> None:
    dims = plan.KNOWN_DIMS["Qwen/Qwen2.5-VL-7B-Instruct"]
    batch = plan.TokenBatch(rows=1, prompt=1800, response=1024, pixels=1_254_400)
    added = plan.lora_parameters(dims, 16, LORA_TARGETS, vision=False)
    assert added == 40_370_176  # what peft adds to the 7B's language model
    assert plan.lora_parameters(dims, 16, LORA_TARGETS, vision=True) > added
    all_weights, lora = (
        plan.training_memory(
            dims, batch, 1, reference=True, checkpointing=True, lora_parameters=adapters
        )
        for adapters in (None, added)
    )
    reference = 2 * dims.parameters  # LoRA needs no second copy of the model
    saved = 14 * dims.parameters - 16 * added + reference
    assert all_weights[0] - lora[0] == pytest.approx(saved)


def test_generation_memory_is_the_sum_of_weights_kv_cache_images_and_logits() -> None:
    dims = plan.KNOWN_DIMS["Qwen/Qwen2.5-VL-7B-Instruct"]
    one = plan.TokenBatch(rows=1, prompt=1600, response=448, pixels=1_254_400)
    sizes = plan.generation_memory(dims, one, 2)
    assert sizes["weights"] == pytest.approx(2 * 8.29e9)  # bytes x parameters of the 7B model
    assert sizes["KV cache"] == 28_672 * 2 * 2048  # values per token, bytes, tokens
    assert sizes["logits"] == 4 * 152_064  # float32, vocabulary
    in_process = plan.generation_memory(dims, one, 2, cached_prompts=8)
    assert in_process["cached prompts"] == 8 * 28_672 * 2 * 1600
    # 8 cached prompts, and one that is being prefilled.
    assert sum(in_process.values()) - sum(sizes.values()) == (8 + 1) * 28_672 * 2 * 1600


def test_the_estimated_batch_has_the_engines_number_of_rows() -> None:
    def num_rows(**changes) -> int:
        """The rows of a batch whose prompts have 1600 tokens and responses 448, 2048 together."""
        model = replace(ModelConfig(), **changes)
        return plan.generation_batch(model, 1600, 448, 1_254_400).rows

    assert num_rows(batch_size=64) == 64
    assert num_rows(batch_size=64, batch_tokens=2048 * 10) == 10
    assert num_rows(batch_size=64, batch_tokens=100) == 1
    # A deterministic engine always has FIXED_ROWS rows; it pads 2049 tokens to the next power of 2.
    assert num_rows(batch_size=64, batch_tokens=100, deterministic=True) == FIXED_ROWS
    model = replace(ModelConfig(), deterministic=True)
    assert plan.generation_batch(model, 1601, 448, 1_254_400).tokens == FIXED_ROWS * 4096


def test_a_pilot_without_a_response_is_ignored(tmp_path) -> None:
    """A pilot is a probe of few samples that was run before to estimate a larger one."""
    config = RunConfig(output_dir=str(tmp_path))
    pilot_config = replace(config, data=replace(config.data, limit=config.plan.pilot))
    # `settled` describes for which measures and settings the pilot has enough responses.
    counts = {
        "generations": 0,
        "tokens": 0,
        "samples": 4,
        "settled": [requirements(config.difficulty, config.probe).describe(4)],
    }

    def write_pilot_manifest() -> None:
        folder = RunPaths(pilot_config).probe
        manifest.write_manifest(folder, settings={}, inputs={}, seconds=2.0, counts=counts)

    write_pilot_manifest()
    assert plan.find_pilot(config) == (None, plan.PAPER_MIX)
    counts["generations"] = 8
    write_pilot_manifest()
    assert plan.find_pilot(config) == ({**counts, "seconds": 2.0}, "a pilot of 4 samples")


def test_a_pilot_for_other_settings_is_ignored_and_the_plan_says_why(tmp_path) -> None:
    config = RunConfig(output_dir=str(tmp_path))
    pilot_config = replace(config, data=replace(config.data, limit=config.plan.pilot))
    full = requirements(config.difficulty, replace(config.probe, until=Until.grid)).describe(4)
    ours = requirements(config.difficulty, config.probe).describe(4)
    for settled in ([full], [ours, full]):
        counts = {"generations": 400, "tokens": 0, "samples": 4, "settled": settled}
        folder = RunPaths(pilot_config).probe
        manifest.write_manifest(folder, settings={}, inputs={}, seconds=2.0, counts=counts)
        pilot, source = plan.find_pilot(config)
        assert pilot is None
        assert source.startswith(f"{plan.PAPER_MIX}, because the pilot was for (")
        assert full in source


def test_a_shared_prompt_counts_once_in_the_tokens_of_a_step() -> None:
    grpo = GrpoConfig(
        prompts_per_step=2,
        num_generations=8,
        max_completion_length=128,
        per_device_train_batch_size=16,
    )
    assert plan.step_tokens(grpo, prompt=800) == (2 * 800 + 16 * 128, 16 * 928)
    cut = replace(grpo, per_device_train_batch_size=4)  # each group in two passes
    assert plan.step_tokens(cut, prompt=800) == (4 * 800 + 16 * 128, 16 * 928)
    never = replace(grpo, shared_prompt=SharedPrompt.never)
    assert plan.step_tokens(never, prompt=800) == (16 * 928, 16 * 928)


def test_dynamic_sampling_generates_at_most_all_rounds() -> None:
    grpo = GrpoConfig(prompts_per_step=2, num_generations=8, max_rounds=4)
    assert plan.step_rollouts(grpo) == (16, 16)
    grpo.dynamic_sampling = True
    assert plan.step_rollouts(grpo) == (16, 5 * 16)


def test_a_model_without_a_config_on_this_machine_has_no_dimensions(tmp_path) -> None:
    assert plan.model_dims("someone/some-model") is None
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    assert plan.model_dims(str(tmp_path)) is None


def test_a_probe_that_settles_only_the_stratum_needs_fewer_responses_to_easy_samples() -> None:
    assert responses(Stratum.easy, "pism", Until.ratio) == 20
    assert responses(Stratum.easy, "pism", Until.stratum) == 14  # none at the ratios from 0.7
    by_ratio = responses(Stratum.hard, "pism", Until.ratio)
    assert responses(Stratum.hard, "pism", Until.stratum) == by_ratio
