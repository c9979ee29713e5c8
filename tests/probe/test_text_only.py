"""The probe's requests without the image (View.text_only): their prompt, seed and response.

A ProbeRequest is for one draw (sampled response), with `percent` of the image hidden.
"""

from dataclasses import replace

from difftrain.config.difficulty import ProbeConfig
from difftrain.data import prompts
from difftrain.model.engines import kv_cache
from difftrain.model.loading import LoadedModel
from difftrain.probe.run import engine_request, graded_rollout, sampling_seed
from difftrain.probe.schedule import ProbeRequest
from difftrain.records import Sample, View
from tests.model.answering import generate

CONFIG = ProbeConfig(max_new_tokens=12)  # short, to be fast


def text_only_request(sample: Sample, draw: int) -> ProbeRequest:
    return ProbeRequest(sample, percent=0, draw=draw, text_only=True)


def test_the_prompt_has_no_placeholder_and_no_image(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    requests = [
        engine_request(text_only_request(sample, 0), CONFIG, run_seed=1)
        for sample in shapes_samples
    ]
    assert all(not request.images for request in requests)
    inputs = kv_cache.encode(tiny, requests)
    assert "pixel_values" not in inputs
    placeholder_ids = list(tiny.banned.values())
    assert placeholder_ids
    assert not any((inputs["input_ids"] == token_id).any() for token_id in placeholder_ids)


def test_placeholders_in_the_question_itself_are_removed(shapes_samples: list[Sample]) -> None:
    question = "<image>\nCompare <image 2> with <|vision_start|><|image_pad|><|vision_end|>this."
    sample = replace(shapes_samples[0], question=question, options=())
    (text,) = engine_request(text_only_request(sample, 0), CONFIG, run_seed=1).parts
    assert text == "Compare  with this."


def test_the_prompt_text_is_the_same_as_with_the_image(shapes_samples: list[Sample]) -> None:
    for sample in shapes_samples:
        request = ProbeRequest(sample, percent=0, draw=0)
        with_image = engine_request(request, CONFIG, run_seed=1)
        text_alone = engine_request(text_only_request(sample, 0), CONFIG, run_seed=1)
        assert text_alone.parts == (prompts.user_text(sample.question, sample.options).strip(),)
        assert with_image.text.strip() == text_alone.text


def test_draws_with_and_without_the_image_have_different_seeds(
    shapes_samples: list[Sample],
) -> None:
    sample = shapes_samples[0]
    draws = [ProbeRequest(sample, percent=0, draw=n) for n in range(5)]
    draws += [text_only_request(sample, n) for n in range(5)]
    assert len({sampling_seed(1, draw) for draw in draws}) == 10  # 1: the seed of the run


def test_a_text_only_response_does_not_depend_on_its_batch(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    draws = [text_only_request(sample, n) for n, sample in enumerate(shapes_samples[:6])]
    draws += [
        ProbeRequest(sample, percent=0, draw=n) for n, sample in enumerate(shapes_samples[:6])
    ]
    requests = [engine_request(draw, CONFIG, run_seed=1) for draw in draws]
    alone = [generate(tiny, [request], 1)[0].token_ids for request in requests]  # batch size 1
    together = [completion.token_ids for completion in generate(tiny, requests, 12)]
    text_only_together = [completion.token_ids for completion in generate(tiny, requests[:6], 6)]
    assert alone == together
    assert alone[:6] == text_only_together


def test_a_rollout_records_its_view(tiny: LoadedModel, shapes_samples: list[Sample]) -> None:
    draw = text_only_request(shapes_samples[0], 3)
    (completion,) = generate(tiny, [engine_request(draw, CONFIG, run_seed=1)], 1)  # batch size 1
    row = graded_rollout(draw, completion, run_seed=1)
    assert (row.view, row.mask_percent, row.draw) == (View.text_only, 0, 3)
