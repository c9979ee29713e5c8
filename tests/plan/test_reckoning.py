"""What a plan reckons with: expected answers and memory, against simulation and real weights."""

import random
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from difftrain.config.difficulty import Until
from difftrain.config.run_config import RunConfig
from difftrain.config.train import LORA_TARGETS
from difftrain.model.resolve import SHIPPED
from difftrain.pipeline import manifest
from difftrain.pipeline.paths import RunPaths
from difftrain.plan import memory
from difftrain.plan.generations import Ladder, expected
from difftrain.probe.schedule import next_draws
from difftrain.probe.state import requirements
from difftrain.recipes import reckoning
from difftrain.records import Measure, Stratum, TaskSet

PAPER = {TaskSet.perception: 20_633, TaskSet.reasoning: 27_133}


def ladder(**changes) -> Ladder:
    """PISM alone, as the paper has it."""
    plain = {
        "percents": range(0, 100, 10), "draws": 10, "least": 1, "hard_upto": 0.4, "easy_from": 0.7,
        "climbs": True, "full": False, "first_right": False, "whole": 0, "text_only": 0,
    }  # fmt: skip
    return Ladder(**{**plain, **changes})


def test_the_papers_own_mix_costs_about_an_eighth_of_the_grid() -> None:
    grid = sum(PAPER.values()) * 100
    reasoning = expected(ladder(), Measure.pism, {TaskSet.reasoning: 27_133}) / 2_713_300
    assert reasoning == pytest.approx(1 / 8, abs=0.01)
    assert expected(ladder(), Measure.pism, PAPER) / grid == pytest.approx(0.145, abs=0.01)


@pytest.mark.parametrize("stratum", Stratum)
def test_expected_draws_are_those_of_the_schedule_itself(stratum: Stratum) -> None:
    luck, own = random.Random(0), ladder()
    total, runs = 0, 1500
    for _ in range(runs):
        fails = luck.choice(own.failing(stratum))
        table_RK = np.full((10, 10), -1, dtype=np.int8)
        while asked := next_draws(table_RK):
            ((row, draw),) = asked
            table_RK[row, draw] = row != fails and luck.random() < 0.5
            total += 1
    assert own.expected(stratum) == pytest.approx(total / runs, rel=0.05)


def test_other_needs_share_the_ladders_first_draws() -> None:
    solved = Stratum.easy
    assert ladder().expected(solved) == 20
    assert ladder(first_right=True).expected(solved) == 20
    assert ladder(whole=5).expected(solved) == 23
    assert ladder(whole=5, text_only=5).expected(solved) == 28
    assert ladder(whole=5).expected(Stratum.unsolved) == 10
    assert ladder(climbs=False, first_right=True).expected(Stratum.unsolved) == 10
    assert ladder(climbs=False, first_right=True).expected(solved) == 2
    assert ladder(climbs=False, whole=5, text_only=5).expected(solved) == 10
    assert ladder(full=True, text_only=5).expected(solved) == 105


def test_parameters_are_counted_as_the_weights_have_them() -> None:
    shape = memory.shape_of(str(SHIPPED["tiny"]))
    assert shape is not None
    with safe_open(SHIPPED["tiny"] / "model.safetensors", "numpy") as weights:
        names = list(weights.keys())
        sizes = {name: int(np.prod(weights.get_slice(name).get_shape())) for name in names}
    assert shape.parameters == pytest.approx(sum(sizes.values()), rel=0.02)
    tower = sum(size for name, size in sizes.items() if "visual" in name)
    assert shape.tower == pytest.approx(tower, rel=0.03)


def test_the_7bs_known_shape_is_what_its_config_counts_to() -> None:
    text = {
        "hidden_size": 3584, "num_hidden_layers": 28, "vocab_size": 152_064,
        "num_attention_heads": 28, "intermediate_size": 18_944, "num_key_value_heads": 4,
    }  # fmt: skip
    vision = {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32}
    found = memory.counted({"tie_word_embeddings": False}, text, vision)
    known = memory.KNOWN["Qwen/Qwen2.5-VL-7B-Instruct"]
    assert found.parameters == pytest.approx(known.parameters, rel=0.01)
    assert found.tower == pytest.approx(known.tower, rel=0.02)
    assert found.cache_values == known.cache_values == 28_672


def test_memory_of_training_shrinks_with_each_zero_stage_by_the_formula() -> None:
    shape = memory.KNOWN["Qwen/Qwen2.5-VL-7B-Instruct"]
    batch = memory.Batch(rows=4, prompt=1800, answer=1024, pixels=1_254_400)

    def stages(gpus: int, frozen_tower: bool = False, **changes: bool) -> dict[int, float]:
        plain = {"reference": False, "checkpointing": True} | changes
        learned = memory.Learned(frozen_tower=frozen_tower)
        return memory.training(shape, batch, gpus, learned, **plain)

    found = stages(8)
    assert found[0] > found[1] > found[2] > found[3]
    assert found[0] - found[3] == pytest.approx(16 * shape.parameters * 7 / 8)
    assert stages(1)[3] == stages(1)[0]
    assert stages(8, reference=True)[2] - found[2] == pytest.approx(2 * shape.parameters)
    assert found[2] - stages(8, frozen_tower=True)[2] == pytest.approx(14 * shape.tower / 8)
    assert stages(8, checkpointing=False)[3] > found[3]


def test_lora_needs_no_memory_for_what_it_does_not_train() -> None:
    shape = memory.KNOWN["Qwen/Qwen2.5-VL-7B-Instruct"]
    batch = memory.Batch(rows=1, prompt=1800, answer=1024, pixels=1_254_400)
    added = memory.additions(shape, 16, LORA_TARGETS, tower=False)
    assert added == 40_370_176  # what peft adds to the 7B's language model
    assert memory.additions(shape, 16, LORA_TARGETS, tower=True) > added
    whole = memory.training(shape, batch, 1, memory.Learned(), True, True)
    lora = memory.training(shape, batch, 1, memory.Learned(additions=added), True, True)
    reference = 2 * shape.parameters
    assert whole[0] - lora[0] == pytest.approx(14 * shape.parameters - 16 * added + reference)


def test_memory_of_scoring_is_weights_cache_pictures_and_scores() -> None:
    shape = memory.KNOWN["Qwen/Qwen2.5-VL-7B-Instruct"]
    one = memory.Batch(rows=1, prompt=1600, answer=448, pixels=1_254_400)
    found = memory.scoring(shape, one, 2)
    assert found["weights"] == pytest.approx(16.58e9)
    assert found["KV cache"] == 28_672 * 2 * 2048
    assert found["scores"] == 4 * 152_064
    here = memory.scoring(shape, one, 2, remembered=8)
    assert here["prompts remembered"] == 8 * 28_672 * 2 * 1600
    assert sum(here.values()) - sum(found.values()) == (8 + 1) * 28_672 * 2 * 1600


def test_rows_reckoned_with_are_those_that_the_engine_computes_together() -> None:
    config = RunConfig()
    config.probe.max_new_tokens = 448

    def rows(**changes) -> int:
        model = replace(config.model, **changes)
        return reckoning.answering(replace(config, model=model), 1600).rows

    assert rows(batch_size=64) == 64
    assert rows(batch_size=64, batch_tokens=2048 * 10) == 10
    assert rows(batch_size=64, batch_tokens=100) == 1
    assert rows(batch_size=64, batch_tokens=100, deterministic=True) == 16
    config.model.deterministic = True
    assert reckoning.answering(config, 1601).tokens == 16 * 4096


def test_a_pilot_without_an_answer_is_none(tmp_path) -> None:
    config = RunConfig(output_dir=str(tmp_path))
    small = replace(config, data=replace(config.data, limit=config.plan.pilot))
    counts = {
        "generations": 0,
        "tokens": 0,
        "samples": 4,
        "settled": [requirements(config.difficulty, config.probe).describe(4)],
    }

    def close() -> None:
        folder = RunPaths(small).probe
        manifest.write_manifest(folder, settings={}, inputs={}, seconds=2.0, counts=counts)

    close()
    assert reckoning.pilot_of(config) == (None, reckoning.MIX)
    counts["generations"] = 8
    close()
    assert reckoning.pilot_of(config) == ({**counts, "seconds": 2.0}, "a pilot of 4 samples")


def test_a_pilot_for_other_needs_is_not_reckoned_with_and_the_plan_says_why(tmp_path) -> None:
    config = RunConfig(output_dir=str(tmp_path))
    small = replace(config, data=replace(config.data, limit=config.plan.pilot))
    full = requirements(config.difficulty, replace(config.probe, until=Until.grid)).describe(4)
    ours = requirements(config.difficulty, config.probe).describe(4)
    for settled in ([full], [ours, full]):
        counts = {"generations": 400, "tokens": 0, "samples": 4, "settled": settled}
        folder = RunPaths(small).probe
        manifest.write_manifest(folder, settings={}, inputs={}, seconds=2.0, counts=counts)
        pilot, source = reckoning.pilot_of(config)
        assert pilot is None
        assert source.startswith(f"{reckoning.MIX}, because the pilot was for (")
        assert full in source


def test_a_model_without_a_config_at_hand_has_no_shape(tmp_path) -> None:
    assert memory.shape_of("someone/some-model") is None
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    assert memory.shape_of(str(tmp_path)) is None
