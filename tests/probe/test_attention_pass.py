"""Which responses the attention pass measures, and which rows it writes.

The pass reads the rollouts (graded responses) of the probe and measures the attention of some: for
CMAB (cross-modality attention balance) the first correct one of a sample, for ACE (attention
confidence) the first one. DRM (difficulty-aware replacement) needs no attention. A rollout's `draw`
is its number among the responses to one sample.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.run_config import RunConfig
from difftrain.model.engines.types import GenerationError
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.probe.attention_pass import (
    pairs_to_measure,
    responses_to_measure,
    run_attention_pass,
)
from difftrain.probe.schedule import ProbeRequest, write_failure
from difftrain.records import Attention, Measure, Rollout, Sample, Verdict, View

TOKEN_IDS = (7, 9, 30, 31, 5)  # any tokens of the tiny model


def rollout(sample_id: str, draw: int, correct: bool, **changes: Any) -> Rollout:
    """A response to the full image, with some fields changed."""
    row = Rollout(
        sample_id=sample_id, view=View.full_image, mask_percent=0, draw=draw, seed=0, response="",
        num_tokens=len(TOKEN_IDS), token_ids=TOKEN_IDS, hit_eos=True,
        verdict=Verdict.correct if correct else Verdict.incorrect,
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


def run_pass(
    load: Callable[[], LoadedModel], samples: list[Sample], folder: Path, *measures: Measure
) -> list[Attention]:
    """The attention rows after a pass over the rollouts in `folder`/probe."""
    config = RunConfig()
    config.difficulty = DifficultyConfig(measure=measures[0], extra_measures=list(measures[1:]))
    config.model.attention_batch_size = 16
    folders = folder / "probe", folder / "attention"
    run_attention_pass(load, samples, *folders, World(), config, seed=1)
    return parquet.read_rows(folder / "attention", Attention)


def test_ace_measures_the_first_response_and_cmab_the_first_correct_one() -> None:
    rows = [rollout("a", 2, True), rollout("a", 0, False), rollout("a", 3, True)]
    rows += [rollout("b", 0, True), rollout("c", 0, False)]

    def keys(*measures: Measure) -> set[tuple[str, int]]:
        """The sample id and draw of every response to measure."""
        return set(responses_to_measure(rows, measures, draws=10))

    assert keys(Measure.cmab) == {("a", 2), ("b", 0)}
    assert keys(Measure.drm, Measure.ace) == {("a", 0), ("b", 0), ("c", 0)}
    assert keys(Measure.cmab, Measure.ace) == {("a", 0), ("a", 2), ("b", 0), ("c", 0)}


def test_only_responses_with_tokens_to_the_full_image_are_measured() -> None:
    rows = [
        rollout("a", 0, True, view=View.text_only),
        rollout("b", 0, True, view=View.masked, mask_percent=10),
        rollout("c", 0, True, token_ids=(), num_tokens=0),
        rollout("d", 12, True),  # CMAB uses only the first 10 draws, ACE only draw 0
    ]
    assert responses_to_measure(rows, [Measure.cmab, Measure.ace], draws=10) == {}


def test_a_pass_writes_a_row_for_every_response_and_a_second_pass_writes_none(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    samples = shapes_samples[:3]
    rows = [rollout(sample.sample_id, 0, True) for sample in samples[:2]]
    one_token = {"token_ids": (7,), "num_tokens": 1}  # ACE needs at least two
    rows.append(rollout(samples[2].sample_id, 0, False, **one_token))
    parquet.write_part(tmp_path / "probe", "00000", rows)
    measures = Measure.cmab, Measure.ace
    attention = {row.sample_id: row for row in run_pass(lambda: tiny, samples, tmp_path, *measures)}
    assert len(attention) == 3
    num_layers = 4  # of the tiny model
    for sample in samples[:2]:
        assert attention[sample.sample_id].max_log_psi is not None
        # image_LT: attention on the image by L layers and T response tokens.
        assert np.array(attention[sample.sample_id].image_LT).shape == (num_layers, len(TOKEN_IDS))
    assert attention[samples[2].sample_id].max_log_psi is None

    def load() -> LoadedModel:
        pytest.fail("the model was loaded although nothing is missing")

    assert len(run_pass(load, samples, tmp_path, *measures)) == 3


def test_late_rollouts_of_a_failed_sample_do_not_change_what_is_measured(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    """A rank may still write its last draws after another rank has closed the probe."""
    samples, probe = shapes_samples[:4], tmp_path / "probe"
    # The pass sorts samples by id, so an additional row of `failed` would shift all others.
    failed = min(samples, key=lambda sample: sample.sample_id)
    rows = [rollout(sample.sample_id, 0, True) for sample in samples if sample is not failed]
    parquet.write_part(probe, "00000", rows)
    request = ProbeRequest(failed, percent=0, draw=0)
    write_failure(probe, rank=1, request=request, error=GenerationError("too long"))
    before = pairs_to_measure(samples, probe, [Measure.cmab], draws=10)
    assert len(before) == 3
    parquet.write_part(probe, "00001", [rollout(failed.sample_id, 1, True)])
    assert pairs_to_measure(samples, probe, [Measure.cmab], draws=10) == before
    assert len(run_pass(lambda: tiny, samples, tmp_path, Measure.cmab)) == 3
    content = manifest.read_manifest(tmp_path / "attention")
    assert content is not None
    assert content["counts"]["responses"] == 3
