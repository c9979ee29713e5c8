"""The plan's estimates of responses and memory agree with a simulation and with real weights."""

import random
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from difftrain import plan
from difftrain.config.difficulty import DifficultyConfig, PismConfig, ProbeConfig, Until
from difftrain.config.model import ModelConfig
from difftrain.config.run_config import RunConfig
from difftrain.config.train import LORA_TARGETS
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import manifest
from difftrain.pipeline.paths import RunPaths
from difftrain.probe.schedule import next_draws, requirements
from difftrain.records import Measure, Stratum, TaskSet

PAPER_SAMPLES = {TaskSet.perception: 20_633, TaskSet.reasoning: 27_133}


def settings(
    measures: str = "pism", until: Until = Until.ratio
) -> tuple[DifficultyConfig, ProbeConfig]:
    """Default settings for these measures, of which the first one selects."""
    first, *others = map(Measure, measures.split())
    return DifficultyConfig(measure=first, extra_measures=others), ProbeConfig(until=until)


def responses(stratum: Stratum, measures: str, until: Until = Until.ratio) -> float:
    return plan.responses_of(stratum, *settings(measures, until))


def test_the_papers_strata_need_about_an_eighth_of_the_full_grids_responses() -> None:
    grid = sum(PAPER_SAMPLES.values()) * 100
    reasoning = plan.expected_responses(*settings(), {TaskSet.reasoning: 27_133})
    assert reasoning / 2_713_300 == pytest.approx(1 / 8, abs=0.01)
    both = plan.expected_responses(*settings(), PAPER_SAMPLES)
    assert both / grid == pytest.approx(0.145, abs=0.01)


@pytest.mark.parametrize("stratum", Stratum)
def test_expected_draws_match_a_simulation_of_the_schedule(stratum: Stratum) -> None:
    rng, total, num_simulations = random.Random(0), 0, 1500
    for _ in range(num_simulations):
        failing = rng.choice(plan.first_failing(stratum, range(0, 100, 10), PismConfig()))
        correct_RK = np.full((10, 10), -1, dtype=np.int8)  # mask ratios x draws; -1: not drawn
        while requested := next_draws(correct_RK):
            ((row, draw),) = requested
            correct_RK[row, draw] = row != failing and rng.random() < 0.5
            total += 1
    assert responses(stratum, "pism") == pytest.approx(total / num_simulations, rel=0.05)


def test_measures_share_the_responses_to_the_full_image() -> None:
    solved = Stratum.easy
    assert responses(solved, "pism") == 20
    assert responses(solved, "pism cmab") == 20
    assert responses(solved, "pism drm") == 23
    assert responses(solved, "pism cde") == 28
    assert responses(Stratum.unsolved, "pism drm") == 10
    assert responses(Stratum.unsolved, "cmab") == 10
    assert responses(solved, "cmab") == 2
    assert responses(solved, "cde") == 10
    assert responses(solved, "pism cde", Until.grid) == 105


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


def test_memory_of_training_shrinks_with_each_zero_stage_by_the_formula() -> None:
    dims = plan.KNOWN_DIMS["Qwen/Qwen2.5-VL-7B-Instruct"]
    batch = plan.TokenBatch(rows=4, prompt=1800, response=1024, pixels=1_254_400)

    def stages(gpus: int, frozen_vision: bool = False, **changes: bool) -> dict[int, float]:
        plain = {"reference": False, "checkpointing": True} | changes
        return plan.training_memory(dims, batch, gpus, frozen_vision=frozen_vision, **plain)

    by_zero_stage = stages(8)
    assert by_zero_stage[0] > by_zero_stage[1] > by_zero_stage[2] > by_zero_stage[3]
    assert by_zero_stage[0] - by_zero_stage[3] == pytest.approx(16 * dims.parameters * 7 / 8)
    assert stages(1)[3] == stages(1)[0]
    assert stages(8, reference=True)[2] - by_zero_stage[2] == pytest.approx(2 * dims.parameters)
    assert by_zero_stage[2] - stages(8, frozen_vision=True)[2] == pytest.approx(
        14 * dims.vision_parameters / 8
    )
    assert stages(8, checkpointing=False)[3] > by_zero_stage[3]


def test_lora_saves_the_optimizer_memory_of_frozen_weights_and_the_reference_model() -> None:
    dims = plan.KNOWN_DIMS["Qwen/Qwen2.5-VL-7B-Instruct"]
    batch = plan.TokenBatch(rows=1, prompt=1800, response=1024, pixels=1_254_400)
    added = plan.lora_parameters(dims, 16, LORA_TARGETS, vision=False)
    assert added == 40_370_176  # what peft adds to the 7B's language model
    assert plan.lora_parameters(dims, 16, LORA_TARGETS, vision=True) > added
    full, lora = (
        plan.training_memory(
            dims, batch, 1, reference=True, checkpointing=True, lora_parameters=adapters
        )
        for adapters in (None, added)
    )
    reference = 2 * dims.parameters
    assert full[0] - lora[0] == pytest.approx(14 * dims.parameters - 16 * added + reference)


def test_generation_memory_is_the_sum_of_weights_kv_cache_images_and_logits() -> None:
    dims = plan.KNOWN_DIMS["Qwen/Qwen2.5-VL-7B-Instruct"]
    one = plan.TokenBatch(rows=1, prompt=1600, response=448, pixels=1_254_400)
    sizes = plan.generation_memory(dims, one, 2)
    assert sizes["weights"] == pytest.approx(16.58e9)
    assert sizes["KV cache"] == 28_672 * 2 * 2048
    assert sizes["logits"] == 4 * 152_064
    in_process = plan.generation_memory(dims, one, 2, cached_prompts=8)
    assert in_process["cached prompts"] == 8 * 28_672 * 2 * 1600
    assert sum(in_process.values()) - sum(sizes.values()) == (8 + 1) * 28_672 * 2 * 1600


def test_the_estimated_batch_has_the_engines_number_of_rows() -> None:
    def rows(**changes) -> int:
        model = replace(ModelConfig(), **changes)
        return plan.generation_batch(model, 1600, 448, 1_254_400).rows

    assert rows(batch_size=64) == 64
    assert rows(batch_size=64, batch_tokens=2048 * 10) == 10
    assert rows(batch_size=64, batch_tokens=100) == 1
    assert rows(batch_size=64, batch_tokens=100, deterministic=True) == 16
    fixed_shapes = replace(ModelConfig(), deterministic=True)
    assert plan.generation_batch(fixed_shapes, 1601, 448, 1_254_400).tokens == 16 * 4096


def test_a_pilot_without_a_response_is_ignored(tmp_path) -> None:
    config = RunConfig(output_dir=str(tmp_path))
    pilot_config = replace(config, data=replace(config.data, limit=config.plan.pilot))
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


def test_a_model_without_a_config_on_this_machine_has_no_dimensions(tmp_path) -> None:
    assert plan.model_dims("someone/some-model") is None
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    assert plan.model_dims(str(tmp_path)) is None


def test_a_probe_that_stops_at_a_certain_stratum_is_expected_to_need_fewer_responses() -> None:
    assert responses(Stratum.easy, "pism", Until.ratio) == 20
    assert responses(Stratum.easy, "pism", Until.stratum) == 14
    by_ratio = responses(Stratum.hard, "pism", Until.ratio)
    assert responses(Stratum.hard, "pism", Until.stratum) == by_ratio
