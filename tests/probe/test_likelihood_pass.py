"""The pass that measures how likely gold answers are with the image and without it.

The tiny model answers by reading the image in its thought, so its gain shows with the target
`rationale`: the thought of the generated sample, then the answer.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from difftrain.config.difficulty import BoxCoordinates
from difftrain.config.run_config import RunConfig
from difftrain.difficulty.evidence import AnswerLikelihood
from difftrain.difficulty.image_gain import LikelihoodTarget, WithoutImage
from difftrain.grade import grade
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.probe.likelihood_pass import (
    measure_batch,
    run_likelihood_pass,
    target_text,
    target_tokens,
    without_prefix,
)
from difftrain.probe.run import engine_request
from difftrain.probe.schedule import ProbeRequest
from difftrain.records import AnswerKind, Measure, Sample, Verdict
from difftrain.shapes import pool


def config_with(
    target: LikelihoodTarget, without_image: WithoutImage = WithoutImage.text_only
) -> RunConfig:
    config = RunConfig()
    config.difficulty.extra_measures = [Measure.image_gain]
    section = config.difficulty.section(Measure.image_gain)
    section.target, section.without_image = target, without_image
    return config


def gains(rows: list[AnswerLikelihood]) -> list[float]:
    assert all(row.with_image is not None and row.without_image is not None for row in rows)
    return [(row.with_image or 0) - (row.without_image or 0) for row in rows]


def test_every_kind_of_gold_answer_has_a_correct_response_as_its_target(
    shapes_samples: list[Sample],
) -> None:
    by_kind = {sample.answer_kind: sample for sample in shapes_samples}
    assert len(by_kind) >= 4
    for sample in by_kind.values():
        for target in LikelihoodTarget:
            pair = target_text(sample, target)
            assert pair is not None
            assert grade(pair[0], sample) is Verdict.correct


def test_boxes_are_scored_as_the_model_counts_them(shapes_samples: list[Sample]) -> None:
    sample = next(s for s in shapes_samples if s.answer_kind is AnswerKind.boxes)
    sample = replace(sample, answer='[{"bbox_2d": [28, 0, 56, 28], "label": "tile"}]')
    pair = target_text(sample, LikelihoodTarget.answer, BoxCoordinates.relative)
    assert pair is not None
    assert "[250, 0, 500, 250]" in pair[0]  # the image has 112 x 112 pixels


def test_a_tag_that_the_prompt_has_already_is_not_repeated() -> None:
    text = "<think>\n</think><answer>5</answer>"
    scored = text[text.index("5") :]
    rest, start = without_prefix(text, text.index("5"), "<think>")
    assert rest == text.removeprefix("<think>")
    assert rest[start:] == scored
    assert without_prefix(text, 7, "") == (text, 7)


def test_scored_are_the_tokens_of_the_answer_and_of_the_tag_that_ends_it(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    sample = replace(shapes_samples[0], answer="17", rationale="1 + 16")
    tokenizer = tiny.processor.tokenizer

    def scored(target: LikelihoodTarget) -> str:
        pair = target_text(sample, target)
        assert pair is not None
        ids, count = target_tokens(tiny, *pair)
        return tokenizer.decode(ids[-count:])

    assert scored(LikelihoodTarget.answer) == "17</answer>"
    assert scored(LikelihoodTarget.rationale) == "1 + 16</think><answer>17</answer>"


def test_the_log_probability_is_that_of_a_plain_pass_over_one_sample(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    config, samples = config_with(LikelihoodTarget.answer), shapes_samples[:4]
    for sample, row in zip(samples, measure_batch(tiny, samples, config), strict=True):
        pair = target_text(sample, LikelihoodTarget.answer)
        assert pair is not None
        ids, count = target_tokens(tiny, *pair)
        request = engine_request(ProbeRequest(sample, 0, 0), config.probe, 0)
        text = request.chat_text(tiny.processor) + tiny.processor.tokenizer.decode(ids)
        inputs = tiny.processor(text=[text], images=request.images, return_tensors="pt")
        with torch.inference_mode():
            logits = tiny.model(**inputs).logits[0].float().log_softmax(dim=-1)
        tokens = inputs["input_ids"][0]
        expected = sum(
            float(logits[i - 1, tokens[i]]) for i in range(len(tokens) - count, len(tokens))
        )
        assert row.with_image == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("without_image", WithoutImage)
def test_the_gain_is_large_if_the_image_is_needed_and_near_zero_if_not(
    tiny: LoadedModel, without_image: WithoutImage
) -> None:
    samples = [  # which the tiny model answers correctly
        pool.sample(pool.Split.pool, family, index, seed=0, high=0.2)
        for family in ("sign", "signs", "count", "prior")
        for index in range(4)
    ]
    rows = measure_batch(tiny, samples, config_with(LikelihoodTarget.rationale, without_image))
    needed = [s.requires_image for s in samples]
    values = gains(rows)
    with_need = [value for value, need in zip(values, needed, strict=True) if need]
    without_need = [value for value, need in zip(values, needed, strict=True) if not need]
    assert without_need
    assert with_need
    assert max(map(abs, without_need)) < 0.5
    assert min(with_need) > 0.5


def test_a_sample_without_an_image_or_a_rationale_is_not_measured(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    text_only = replace(shapes_samples[0], sample_id="text", images=())
    unexplained = replace(shapes_samples[1], sample_id="none", rationale=None)
    rows = measure_batch(
        tiny, [text_only, shapes_samples[2], unexplained], config_with(LikelihoodTarget.rationale)
    )
    assert [row.with_image is None for row in rows] == [True, False, True]
    assert [row.without_image is None for row in rows] == [True, False, True]
    (row,) = measure_batch(tiny, [text_only], config_with(LikelihoodTarget.answer))
    assert (row.with_image, row.without_image) == (None, None)


def test_a_pass_writes_a_row_for_every_sample_and_continues_after_a_kill(
    tiny: LoadedModel, shapes_samples: list[Sample], tmp_path: Path
) -> None:
    config, samples = config_with(LikelihoodTarget.answer), shapes_samples[:5]
    config.model.attention_batch_size = 2
    inputs = {"data": "d", "model": "m"}
    first = measure_batch(tiny, samples[:2], config)
    parquet.write_part(tmp_path / "x", "r000-00000-abcdef", first)  # of a killed process
    run_likelihood_pass(lambda: tiny, samples, tmp_path / "x", World(), config, inputs)
    rows = parquet.read_rows(tmp_path / "x", AnswerLikelihood)
    assert sorted(row.sample_id for row in rows) == sorted(s.sample_id for s in samples)
    content = manifest.read_manifest(tmp_path / "x")
    assert content is not None
    assert content["counts"] == {"samples": 5}

    def load() -> LoadedModel:
        pytest.fail("the model was loaded although nothing is missing")

    run_likelihood_pass(load, samples, tmp_path / "x", World(), config, inputs)
