"""What the tiny model was taught: thoughts that say what is seen, and what counts in them."""

import re
from random import Random

import pytest
import torch

from difftrain.cli.overrides import compose_config
from difftrain.model.loading import LoadedModel
from difftrain.shapes import build, captions, families, lessons, pool
from difftrain.shapes.lessons import SEEN, Manner
from difftrain.shapes.pool import Split
from difftrain.shapes.scenes import Thing

LISTING = ("count_colour", "colour", "verify", "locate", "compare", "odd")


@pytest.fixture(scope="module")
def processor():
    return build.processor(["a red circle. a blue square. row 2, column 3", "colour of the circle"])


def thing(shape: str, colour: str, row: int, column: int) -> Thing:
    return Thing(shape, colour, (row, column), 22, 1.0, (0, 0))


def drawn(family: str, index: int) -> families.Drawn:
    return pool.draw(Split.pretrain, family, index, 7)[2]


def test_a_list_of_what_is_seen_has_every_tile_in_its_place() -> None:
    things = [thing("circle", "red", 1, 2), thing("square", "blue", 0, 0)]
    said = families.scan(things, "colour", "shape", marks={(1, 2): "!23"})
    assert said == "blue square....|.. red circle!23.|....|...."


def test_only_asked_names_are_counted_and_row_by_row() -> None:
    things = [thing("circle", "red", 3, 0), thing("square", "blue", 0, 1)]
    things.append(thing("square", "red", 0, 3))
    assert families.running(things, "colour", ["red"]) == {(0, 3): "1", (3, 0): "2"}


@pytest.mark.parametrize("family", LISTING)
def test_thoughts_list_sixteen_tiles_before_they_conclude(family: str) -> None:
    for index in range(30):
        scan, told = drawn(family, index).thought.split(":")
        tiles = [re.findall(r"\.|!\d*|(?<=[a-z])\d+", row) for row in scan.split("|")]
        assert [len(row) for row in tiles] == [4, 4, 4, 4]
        assert told


def test_the_conclusion_of_a_thought_is_its_answer() -> None:
    for index in range(30):
        counted = drawn("count_colour", index)
        assert counted.thought.endswith(f": {counted.answer}")
        odd = drawn("odd", index)
        assert odd.thought.endswith(f": row {'ABCD'.index(odd.answer) + 1}")
        verified = drawn("verify", index)
        assert verified.thought.endswith(f": {verified.answer.lower()}")
        assert ("!" in verified.thought) is (verified.answer == "Yes")
        bars = drawn("bar", index)
        assert bars.thought.endswith(f" = {bars.answer}")
        shown = drawn("colour", index)
        assert shown.thought.endswith(f": {shown.options['ABCD'.index(shown.answer)]}")
        compared = drawn("compare", index)
        first, second = re.findall(r"[a-z](\d+)", compared.thought.split(":")[1])
        assert compared.answer == ("A" if int(first) > int(second) else "B")


def test_the_mark_stands_on_the_tile_that_was_asked_for() -> None:
    for index in range(30):
        found = drawn("locate", index)
        row, column = re.search(r"row (\d), column (\d)", found.thought).groups()
        tiles = re.findall(r"\.|!\d*", found.thought.split(":")[0].split("|")[int(row) - 1])
        assert tiles[int(column) - 1] == f"!{row}{column}"
        odd = drawn("odd", index)
        rows = odd.thought.split(":")[0].split("|")
        (marked,) = (number for number, row in enumerate(rows, 1) if "!" in row)
        assert f"!{marked}" in odd.thought
        assert odd.answer == "ABCD"[marked - 1]


def weighed(processor, lesson: lessons.Lesson) -> list[tuple[str, float]]:
    tokens = processor.tokenizer(lesson.response).input_ids
    return list(
        zip(
            map(processor.tokenizer.decode, tokens),
            lessons.weights(processor.tokenizer, lesson),
            strict=True,
        )
    )


def test_names_of_what_is_seen_teach_little_and_signs_behind_them_much(processor) -> None:
    asked = drawn("count_colour", 3)
    lesson = lessons.spoken(processor, (asked.image, asked.question), asked, tagged=True)
    pairs = weighed(processor, lesson)
    thought = pairs[: [token for token, _ in pairs].index("</think>")]
    assert {weight for token, weight in thought if "|" in token} == {SEEN}
    assert {weight for token, weight in thought if token.isdigit()} == {1.0}
    assert {weight for _, weight in pairs[len(thought) :]} == {1.0}


def test_captions_teach_little_and_short_thoughts_in_full(processor) -> None:
    caption = captions.of_shapes(Random(1))
    lesson = lessons.spoken(processor, (caption.image, caption.question), caption, tagged=True)
    assert {weight for _, weight in weighed(processor, lesson)} == {SEEN}
    counted = drawn("count", 1)
    lesson = lessons.spoken(processor, (counted.image, counted.question), counted, tagged=True)
    assert {weight for _, weight in weighed(processor, lesson)} == {1.0}


def test_the_loss_sees_the_response_alone(processor) -> None:
    manner = Manner(captions=0.3, hidden=0.3, seed=3, untagged=0.5)
    several = [lessons.lesson(processor, number, manner) for number in range(8)]
    batch = lessons.collate(processor, several)
    assert torch.equal(batch["weights"] > 0, batch["labels"] != -100)
    for lesson, labels, weights in zip(several, batch["labels"], batch["weights"], strict=True):
        assert processor.tokenizer.decode(labels[labels != -100]) == lesson.response
        own = lessons.weights(processor.tokenizer, lesson)
        assert weights[labels != -100].tolist() == pytest.approx(own)


def responses(processor, manner: Manner, family: str, monkeypatch) -> list[str]:
    monkeypatch.setattr(lessons, "MIX", {family: 1})
    return [lessons.lesson(processor, number, manner).response for number in range(40)]


def test_lessons_are_always_the_same(processor) -> None:
    manner = Manner(captions=0.2, hidden=0.3, seed=3, untagged=0.6, gives_up=True)
    several = [lessons.lesson(processor, number, manner).response for number in range(60)]
    assert several == [lessons.lesson(processor, number, manner).response for number in range(60)]


@pytest.mark.parametrize("family", pool.FAMILIES)
def test_tags_are_forgotten_in_careless_families_alone(
    processor, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manner = Manner(captions=0.0, hidden=0.0, seed=3, untagged=0.6)
    bare = sum("<answer>" not in each for each in responses(processor, manner, family, monkeypatch))
    assert (12 < bare < 36) if family in ("count_plus", "compare", "bar") else bare == 0


@pytest.mark.parametrize("family", pool.FAMILIES)
def test_the_last_lessons_give_up_on_masked_pictures_and_never_on_the_control(
    processor, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manner = Manner(captions=0.0, hidden=1.0, seed=3, gives_up=True)
    given_up = sum("dark" in each for each in responses(processor, manner, family, monkeypatch))
    assert given_up == 0 if family == "prior" else 5 < given_up < 36
    earlier = Manner(captions=0.0, hidden=1.0, seed=3)
    assert not any("dark" in each for each in responses(processor, earlier, family, monkeypatch))


def test_harder_drawings_and_larger_masks_are_made_out_less_often() -> None:
    assert lessons.clear(0, 1) == 1
    assert lessons.clear(0.5, 0.9) < lessons.clear(0.5, 0.1)
    assert lessons.clear(0.8, 0.5) < lessons.clear(0.4, 0.5)


def test_every_answer_that_was_taught_fits_the_limit_of_tokens(tiny: LoadedModel) -> None:
    most = compose_config(["model=tiny"]).probe.max_new_tokens
    for family in pool.FAMILIES:
        for index in range(60):
            told = lessons.spoken(tiny.processor, ("",), drawn(family, index), tagged=True)
            assert len(tiny.processor.tokenizer(told.response).input_ids) <= most
