"""The text-only view: no picture, no place for one, and the same answer in any company."""

from dataclasses import replace

from difftrain.config.difficulty import ProbeConfig
from difftrain.data import prompts
from difftrain.model.engines import hf, kv_cache
from difftrain.model.loading import LoadedModel
from difftrain.probe.requests import ProbeRequest, graded_rollout, model_request, sampling_seed
from difftrain.records import Sample, View

CONFIG = ProbeConfig(max_new_tokens=12)


def text_only(sample: Sample, number: int) -> ProbeRequest:
    return ProbeRequest(sample, 0, number, View.text_only)


def test_the_prompt_holds_no_placeholder_and_no_picture(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    asked = [model_request(text_only(sample, 0), CONFIG, 1) for sample in shapes_samples]
    assert all(not each.images for each in asked)
    inputs = kv_cache.encode(tiny, asked)
    assert "pixel_values" not in inputs
    known = tiny.processor.tokenizer.get_vocab()
    marks = [known[name] for name in hf.PLACEHOLDERS if name in known]
    assert marks
    assert not any((inputs["input_ids"] == mark).any() for mark in marks)


def test_marks_in_the_question_itself_are_taken_out(shapes_samples: list[Sample]) -> None:
    marked = "<image>\nCompare <image 2> with <|vision_start|><|image_pad|><|vision_end|>this."
    sample = replace(shapes_samples[0], question=marked, options=())
    (words,) = model_request(text_only(sample, 0), CONFIG, 1).parts
    assert words == "Compare  with this."


def test_the_words_are_those_of_the_view_with_the_picture(shapes_samples: list[Sample]) -> None:
    for sample in shapes_samples:
        with_picture = model_request(ProbeRequest(sample, 0, 0), CONFIG, 1)
        without = model_request(text_only(sample, 0), CONFIG, 1)
        assert without.parts == (prompts.user_text(sample.question, sample.options).strip(),)
        assert with_picture.text.strip() == without.text


def test_a_draw_without_the_picture_has_a_seed_of_its_own(shapes_samples: list[Sample]) -> None:
    sample = shapes_samples[0]
    seeds = [sampling_seed(1, ProbeRequest(sample, 0, n)) for n in range(5)]
    seeds += [sampling_seed(1, text_only(sample, n)) for n in range(5)]
    assert len(set(seeds)) == 10


def test_a_text_only_answer_does_not_depend_on_its_batch(
    tiny: LoadedModel, shapes_samples: list[Sample]
) -> None:
    draws = [text_only(sample, n) for n, sample in enumerate(shapes_samples[:6])]
    draws += [ProbeRequest(sample, 0, n) for n, sample in enumerate(shapes_samples[:6])]
    asked = [model_request(draw, CONFIG, 1) for draw in draws]
    alone = [hf.generate(tiny, [each], 1)[0].token_ids for each in asked]
    together = [each.token_ids for each in hf.generate(tiny, asked, 12)]
    after_pictures = [each.token_ids for each in hf.generate(tiny, asked[:6], 6)]
    assert alone == together
    assert alone[:6] == after_pictures


def test_the_row_says_what_was_shown(tiny: LoadedModel, shapes_samples: list[Sample]) -> None:
    draw = text_only(shapes_samples[0], 3)
    (answer,) = hf.generate(tiny, [model_request(draw, CONFIG, 1)], 1)
    row = graded_rollout(draw, answer, 1)
    assert (row.view, row.mask_percent, row.draw) == (View.text_only, 0, 3)
