"""The tiny model's pretraining examples: rationales that describe every tile, and token weights.

An image has 4 x 4 tiles with a colored shape or nothing on each. A rationale may list them row by
row, with "|" between rows and a dot for an empty tile. After each object there is a mark: "!" or a
number if the question is about the object, else a dot. Questions come in families, one per function
that generates them.
"""

import re
from random import Random

import pretrain_tiny
import pretraining_data
import pytest
import torch
from pretraining_data import LOW_WEIGHT, Example, Mixture

from difftrain.cli.overrides import compose_config
from difftrain.model.loading import LoadedModel
from difftrain.shapes import families, pool
from difftrain.shapes.families import SceneObject
from difftrain.shapes.pool import Split

LISTING_FAMILIES = ("count_colour", "colour", "verify", "locate", "compare", "odd")
"""The families whose rationales list all tiles."""


@pytest.fixture(scope="module")
def processor():
    """The tiny model's processor, with a tokenizer trained on two texts."""
    return pretrain_tiny.build_processor(
        ["a red circle. a blue square. row 2, column 3", "colour of the circle"]
    )


def scene_object(shape: str, color: str, row: int, column: int) -> SceneObject:
    return SceneObject(shape, color, (row, column))


def drawn(family: str, index: int) -> families.DrawnSample:
    """Sample number `index` of a family: image, question, rationale and answer."""
    _, _, drawn_sample = pool.draw(Split.pretrain, family, index, seed=7)
    return drawn_sample


def test_a_tile_list_has_every_tile_at_its_position() -> None:
    objects = [scene_object("circle", "red", 1, 2), scene_object("square", "blue", 0, 0)]
    text = families.describe_tiles(objects, "color", "shape", marks={(1, 2): "!23"})
    # The first dot is the mark of the blue square; the other dots are empty tiles.
    assert text == "blue square....|.. red circle!23.|....|...."


def test_running_counts_number_the_objects_with_a_name_row_by_row() -> None:
    objects = [scene_object("circle", "red", 3, 0), scene_object("square", "blue", 0, 1)]
    objects.append(scene_object("square", "red", 0, 3))
    assert families.running_counts(objects, "color", ["red"]) == {(0, 3): "1", (3, 0): "2"}


@pytest.mark.parametrize("family", LISTING_FAMILIES)
def test_rationales_list_sixteen_tiles_before_their_conclusion(family: str) -> None:
    for index in range(30):
        tile_list, conclusion = drawn(family, index).rationale.split(":")
        # A tile ends in a dot (an empty tile or a mark), in "!" with digits, or in a number.
        tiles = [re.findall(r"\.|!\d*|(?<=[a-z])\d+", row) for row in tile_list.split("|")]
        assert [len(row) for row in tiles] == [4, 4, 4, 4]
        assert conclusion


def test_the_conclusion_of_a_rationale_is_its_answer() -> None:
    for index in range(30):
        counted = drawn("count_colour", index)
        assert counted.rationale.endswith(f": {counted.answer}")
        odd = drawn("odd", index)  # options A to D are the rows 1 to 4
        assert odd.rationale.endswith(f": row {'ABCD'.index(odd.answer) + 1}")
        verified = drawn("verify", index)
        assert verified.rationale.endswith(f": {verified.answer.lower()}")
        assert ("!" in verified.rationale) is (verified.answer == "Yes")
        bars = drawn("bar", index)
        assert bars.rationale.endswith(f" = {bars.answer}")
        color = drawn("colour", index)
        assert color.rationale.endswith(f": {color.options['ABCD'.index(color.answer)]}")
        compared = drawn("compare", index)  # option A if the first count is larger
        first, second = re.findall(r"[a-z](\d+)", compared.rationale.split(":")[1])
        assert compared.answer == ("A" if int(first) > int(second) else "B")


def test_the_mark_is_on_the_tile_that_the_question_asks_for() -> None:
    for index in range(30):
        located = drawn("locate", index)
        row, column = re.search(r"row (\d), column (\d)", located.rationale).groups()
        tiles = re.findall(r"\.|!\d*", located.rationale.split(":")[0].split("|")[int(row) - 1])
        assert tiles[int(column) - 1] == f"!{row}{column}"
        odd = drawn("odd", index)
        rows = odd.rationale.split(":")[0].split("|")
        (marked,) = (number for number, row in enumerate(rows, 1) if "!" in row)
        assert f"!{marked}" in odd.rationale
        assert odd.answer == "ABCD"[marked - 1]


def weighted_tokens(processor, example: Example) -> list[tuple[str, float]]:
    """The tokens of a response, each with its loss weight."""
    tokens = processor.tokenizer(example.response).input_ids
    return list(
        zip(
            map(processor.tokenizer.decode, tokens),
            pretraining_data.token_weights(processor.tokenizer, example),
            strict=True,
        )
    )


def test_separators_of_rows_have_low_weight_and_numbers_after_names_full_weight(
    processor,
) -> None:
    """In the family count_colour the marks are numbers, which count the objects of one color."""
    counted = drawn("count_colour", 3)
    example = pretraining_data.to_example(
        processor, (counted.image, counted.question), counted, tagged=True
    )
    pairs = weighted_tokens(processor, example)
    rationale = pairs[: [token for token, _ in pairs].index("</think>")]
    assert {weight for token, weight in rationale if "|" in token} == {LOW_WEIGHT}
    assert {weight for token, weight in rationale if token.isdigit()} == {1.0}
    assert {weight for _, weight in pairs[len(rationale) :]} == {1.0}


def test_captions_have_low_weight_and_short_rationales_full_weight(processor) -> None:
    caption = pretraining_data.draw_caption(Random(1))
    example = pretraining_data.to_example(
        processor, (caption.image, caption.question), caption, tagged=True
    )
    assert {weight for _, weight in weighted_tokens(processor, example)} == {LOW_WEIGHT}
    counted = drawn("count", 1)
    example = pretraining_data.to_example(
        processor, (counted.image, counted.question), counted, tagged=True
    )
    assert {weight for _, weight in weighted_tokens(processor, example)} == {1.0}


def test_the_loss_is_on_the_response_alone(processor) -> None:
    # The shares of captions, of masked images, and of answers without tags.
    mixture = Mixture(captions=0.3, masked=0.3, seed=3, untagged=0.5)
    examples = [pretraining_data.example(processor, number, mixture) for number in range(8)]
    batch = pretraining_data.collate(processor, examples)
    assert torch.equal(batch["weights"] > 0, batch["labels"] != -100)
    for example, labels, weights in zip(examples, batch["labels"], batch["weights"], strict=True):
        assert processor.tokenizer.decode(labels[labels != -100]) == example.response
        expected = pretraining_data.token_weights(processor.tokenizer, example)
        assert weights[labels != -100].tolist() == pytest.approx(expected)


def responses(processor, mixture: Mixture, family: str, monkeypatch) -> list[str]:
    """The responses of 40 examples, all of one family."""
    monkeypatch.setattr(pretraining_data, "MIX", {family: 1})
    return [pretraining_data.example(processor, number, mixture).response for number in range(40)]


def test_examples_are_always_the_same(processor) -> None:
    mixture = Mixture(captions=0.2, masked=0.3, seed=3, untagged=0.6, gives_up=True)
    examples = [
        pretraining_data.example(processor, number, mixture).response for number in range(60)
    ]
    assert examples == [
        pretraining_data.example(processor, number, mixture).response for number in range(60)
    ]


@pytest.mark.parametrize("family", pool.FAMILIES)
def test_only_untagged_families_leave_out_answer_tags(
    processor, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = Mixture(captions=0.0, masked=0.0, seed=3, untagged=0.6)
    num_untagged = sum(
        "<answer>" not in text for text in responses(processor, mixture, family, monkeypatch)
    )
    if family in ("count_plus", "compare", "bar"):  # the untagged families
        assert 12 < num_untagged < 36  # about 60 % of 40
    else:
        assert num_untagged == 0


@pytest.mark.parametrize("family", pool.FAMILIES)
def test_only_a_mixture_that_gives_up_does_so_on_masked_images_and_never_in_the_family_prior(
    processor, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions of the family `prior` need no image. "dark" is the rationale of giving up.

    Only the last phase of pretraining has such a mixture of examples.
    """
    mixture = Mixture(captions=0.0, masked=1.0, seed=3, gives_up=True)
    num_given_up = sum("dark" in t for t in responses(processor, mixture, family, monkeypatch))
    if family == "prior":
        assert num_given_up == 0
    else:
        assert 5 < num_given_up < 36  # not all 40: images with a small mask are recognized
    never_gives_up = Mixture(captions=0.0, masked=1.0, seed=3)
    assert not any("dark" in t for t in responses(processor, never_gives_up, family, monkeypatch))


def test_harder_drawings_and_larger_masks_are_recognized_less_often() -> None:
    # visibility(masked_share, gen_difficulty)
    assert pretraining_data.visibility(0, 1) == 1
    assert pretraining_data.visibility(0.5, 0.9) < pretraining_data.visibility(0.5, 0.1)
    assert pretraining_data.visibility(0.8, 0.5) < pretraining_data.visibility(0.4, 0.5)


def test_every_pretraining_response_fits_the_token_limit(tiny: LoadedModel) -> None:
    limit = compose_config(["model=tiny"]).probe.max_new_tokens
    for family in pool.FAMILIES:
        for index in range(60):
            prompt_parts = ("",)  # empty, as only the length of the response matters
            example = pretraining_data.to_example(
                tiny.processor, prompt_parts, drawn(family, index), tagged=True
            )
            assert len(tiny.processor.tokenizer(example.response).input_ids) <= limit


def test_every_question_in_the_tokenizers_text_comes_from_the_pretraining_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits: set[Split] = set()
    draw = pool.draw

    def recording_draw(split: Split, *rest):
        splits.add(split)
        return draw(split, *rest)

    monkeypatch.setattr(pool, "draw", recording_draw)
    list(pretrain_tiny.corpus())  # the text on which the tokenizer is trained
    assert splits == {Split.pretrain}


def test_captions_are_for_pretraining_only() -> None:
    questions = {sample.question for sample in pool.samples(Split.pool, 200)}
    assert pretraining_data.CAPTION_QUESTION not in questions
