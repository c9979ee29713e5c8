"""Which responses are measured, and what one teacher-forced pass writes of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from difftrain.config.difficulty import DifficultyConfig
from difftrain.config.run_config import RunConfig
from difftrain.model.engines.types import GenerationError
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.probe import attention_pass, state
from difftrain.probe.requests import ProbeRequest
from difftrain.records import Attention, Measure, Rollout, Sample, Verdict, View

WORDS = (7, 9, 30, 31, 5)


def answer(sample_id: str, draw: int, right: bool, **changed: object) -> Rollout:
    made = Rollout(
        sample_id=sample_id, view=View.full_image, mask_percent=0, draw=draw, seed=0, response="",
        num_tokens=len(WORDS), token_ids=WORDS, hit_eos=True,
        verdict=Verdict.correct if right else Verdict.incorrect,
    )  # fmt: skip
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def config(*measures: Measure) -> RunConfig:
    found = RunConfig()
    found.difficulty = DifficultyConfig(measure=measures[0], extra_measures=list(measures[1:]))
    return found


def test_ace_looks_at_the_first_answer_and_cmab_at_the_first_right_one() -> None:
    rows = [answer("a", 2, True), answer("a", 0, False), answer("a", 3, True)]
    rows += [answer("b", 0, True), answer("c", 0, False)]

    def keys(*measures: Measure) -> set[tuple[str, int]]:
        return set(attention_pass.responses_to_measure(rows, config(*measures)))

    assert keys(Measure.cmab) == {("a", 2), ("b", 0)}
    assert keys(Measure.drm, Measure.ace) == {("a", 0), ("b", 0), ("c", 0)}
    assert keys(Measure.cmab, Measure.ace) == {("a", 0), ("a", 2), ("b", 0), ("c", 0)}


def test_only_whole_pictures_and_responses_with_tokens_are_measured() -> None:
    rows = [
        answer("a", 0, True, view=View.text_only),
        answer("b", 0, True, view=View.masked, mask_percent=10),
        answer("c", 0, True, token_ids=(), tokens=0),
        answer("d", 12, True),  # beyond the K draws that are CMAB's
    ]
    assert attention_pass.responses_to_measure(rows, config(Measure.cmab, Measure.ace)) == {}


def test_one_pass_writes_masses_and_bias_and_a_second_run_writes_nothing(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    samples = shapes_samples[:3]
    rows = [answer(sample.sample_id, 0, True) for sample in samples[:2]]
    rows.append(answer(samples[2].sample_id, 0, False, token_ids=(7,), tokens=1))
    parquet.write_part(tmp_path / "probe", "00000", rows)
    made = config(Measure.cmab, Measure.ace)
    folder = tmp_path / "attention"
    attention_pass.run_attention_pass(
        lambda: tiny, samples, tmp_path / "probe", folder, made, World()
    )
    found = {each.sample_id: each for each in parquet.read(folder, Attention)}
    assert len(found) == 3
    for sample in samples[:2]:
        assert found[sample.sample_id].max_log_psi is not None
        assert np.array(found[sample.sample_id].image_LT).shape == (4, len(WORDS))
    assert found[samples[2].sample_id].max_log_psi is None

    def unwanted() -> LoadedModel:
        pytest.fail("the model was loaded although nothing is missing")

    attention_pass.run_attention_pass(unwanted, samples, tmp_path / "probe", folder, made, World())
    assert len(parquet.read(folder, Attention)) == 3


def test_late_answers_of_a_sample_set_aside_change_no_ranks_share(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    """One rank's last draws may come in after the probe was closed."""
    samples, made = shapes_samples[:4], config(Measure.cmab)
    out = min(samples, key=lambda each: each.sample_id)
    rows = [answer(each.sample_id, 0, True) for each in samples if each is not out]
    probe, folder = tmp_path / "probe", tmp_path / "attention"
    parquet.write_part(probe, "00000", rows)
    state.write_failures(
        probe, 1, [state.failed_request(ProbeRequest(out, 0, 0), GenerationError("too long"))]
    )
    before = attention_pass.pairs_to_measure(samples, probe, made)
    assert len(before) == 3
    parquet.write_part(probe, "00001", [answer(out.sample_id, 1, True)])
    assert attention_pass.pairs_to_measure(samples, probe, made) == before
    attention_pass.run_attention_pass(lambda: tiny, samples, probe, folder, made, World())
    assert len(parquet.read(folder, Attention)) == 3
    closed = manifest.read_manifest(folder)
    assert closed is not None
    assert closed["counts"]["responses"] == 3
