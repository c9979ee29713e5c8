"""The built-in shapes/ benchmarks have official formats, share no sample with the training pool,
and can be scored.

They imitate published benchmarks with generated images of shapes. The stub judge stands in for the
language model that scores MM-Vet.
"""

from collections import defaultdict
from io import BytesIO

import pytest
from PIL import Image

from difftrain import evaluate
from difftrain.data import prompts
from difftrain.shapes import benchmarks, pool
from difftrain.shapes.benchmarks import judge
from difftrain.shapes.pool import Split

SIZE = 24
NAMES = ("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar")
COLUMNS = {  # of an official item, besides its image
    "MathVista": "index pid question question_type answer_type choices answer task skills",
    "MMVet": "index question answer category",
    "OCRBench": "index question answer category dataset",
    "HallusionBench": "index category l2-category set_id figure_id question_id question answer",
    "MMMU": "index id question answer split category l2-category question_type",
    "MMStar": "index question A B answer category l2_category",
}


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict]]:
    """The first items of every benchmark, by its name."""
    return {name: benchmarks.items(name, SIZE) for name in NAMES}


def gold_response(name: str, item: dict) -> str:
    """A response that gives the gold answer."""
    if name == "MMVet":
        return item["answer"].replace("<AND>", " ").partition("<OR>")[0]
    if name == "OCRBench":
        return item["answer"][0]
    return item["answer"]


@pytest.mark.parametrize("name", NAMES)
def test_items_have_the_official_columns_and_an_image(
    name: str, items: dict[str, list[dict]]
) -> None:
    assert len(items[name]) == SIZE
    for item in items[name]:
        assert set(COLUMNS[name].split()) <= item.keys()
        assert Image.open(BytesIO(item["image"])).size == (112, 112)


@pytest.mark.parametrize("name", NAMES)
def test_items_are_the_same_every_time_and_change_with_the_seed(
    name: str, items: dict[str, list[dict]]
) -> None:
    assert benchmarks.items(f"shapes/{name}", 5) == items[name][:5]
    assert benchmarks.items(name, 5, seed=1) != items[name][:5]


def test_no_item_is_in_the_training_pool_or_in_two_benchmarks(items: dict[str, list[dict]]) -> None:
    ids = [item["sample_id"] for rows in items.values() for item in rows]
    assert len(set(ids)) == len(ids) == SIZE * len(NAMES)
    assert not set(ids) & {sample.sample_id for sample in pool.samples(Split.pool, 600)}
    assert all(pool.in_split(id_, Split.bench) for id_ in ids)


@pytest.mark.parametrize("rules", ["2025-11", "2026-08"])  # versions of the scoring rules
@pytest.mark.parametrize("name", NAMES)
def test_the_gold_answer_scores_one_and_a_wrong_answer_zero(
    name: str, rules: str, items: dict[str, list[dict]]
) -> None:
    stub_judge = judge if name == "MMVet" else None
    for item in items[name]:
        gold = gold_response(name, item)
        wrong = {"Yes": "No", "No": "Yes", "A": "B", "B": "A"}.get(gold, "???")
        assert evaluate.score_item(name, gold, item, stub_judge, rules) == 1.0
        assert evaluate.score_item(name, wrong, item, stub_judge, rules) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_prompts_contain_the_image_and_text(name: str, items: dict[str, list[dict]]) -> None:
    for item in items[name]:
        parts = evaluate.build_prompt(f"shapes/{name}", item)
        image_parts = [part["value"] for part in parts if part["type"] == "image"]
        assert image_parts == [item["image"]]
        assert all(isinstance(part["value"], str) for part in parts if part["type"] == "text")


def test_a_question_has_the_same_prompt_in_mmstar_and_in_training() -> None:
    item = benchmarks.items("MMStar", 1)[0]
    family = item["l2_category"]  # named after the function that generates the question
    _id, _difficulty, drawn = pool.draw(Split.pool, family, index=0, seed=0)
    pool_item = {
        **item,
        "question": drawn.question,
        **dict(zip("ABCD", drawn.options, strict=False)),
    }
    text_part = evaluate.build_prompt("MMStar", pool_item)[-1]
    assert text_part["value"] == prompts.user_text(drawn.question, drawn.options)


def test_open_mmmu_prompts_have_text_before_and_after_the_image(
    items: dict[str, list[dict]],
) -> None:
    item = next(item for item in items["MMMU"] if item["question_type"] == "open")
    before, image, after = evaluate.build_prompt("MMMU", item)
    assert (before["value"], image["type"]) == ("Question: ", "image")
    assert after["value"].endswith("\n")
    assert "Options" not in after["value"]


def test_hallusionbench_has_each_question_for_two_figures_with_opposite_answers(
    items: dict[str, list[dict]],
) -> None:
    answers_of_question, images_of_figure = defaultdict(list), defaultdict(list)
    for item in items["HallusionBench"]:
        answers_of_question[item["set_id"], item["question"]].append(item["answer"])
        images_of_figure[item["set_id"], item["figure_id"]].append(item["image"])
    assert all(sorted(answers) == ["No", "Yes"] for answers in answers_of_question.values())
    # A figure has two questions, so two items with the same image.
    for images in images_of_figure.values():
        assert len(images) == 2
        assert len(set(images)) == 1


def test_items_have_several_subjects_all_capabilities_and_both_forms_of_gold_answers(
    items: dict[str, list[dict]],
) -> None:
    assert len({item["l2-category"] for item in items["MMMU"]}) >= 3
    assert len({item["category"] for item in items["MMMU"]}) >= 3
    assert {item["question_type"] for item in items["MMMU"]} == {"multiple-choice", "open"}
    assert len({item["category"] for item in items["MMStar"]}) == 6
    assert any("<AND>" in item["answer"] for item in items["MMVet"])
    assert any("<OR>" in item["answer"] for item in items["MMVet"])


def test_an_unknown_benchmark_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="'MMBench': must be one of"):
        benchmarks.items("MMBench", 1)


@pytest.mark.parametrize(
    ("gold", "prediction", "score"),
    [
        ("AC <AND> CE", "ACE", "1.0"),
        ("AC <AND> CE", "ACX", "0.5"),
        ("AC <AND> CE", "XXX", "0.0"),
        ("7 <OR> seven", "There are 7.", "1.0"),
        ("7 <OR> seven", "Seven", "1.0"),
        ("7 <OR> seven", "17", "0.0"),
        ("7 <OR> seven", "6 or 7", "0.0"),
        ("7 <OR> seven", "<think>6 + 1</think><answer>7</answer>", "1.0"),
        ("7", "", "0.0"),
    ],
)
def test_the_stub_judge_scores_the_parts_of_the_gold_answer(
    gold: str, prediction: str, score: str
) -> None:
    prompt = f"Instructions\nHow many? | {gold} | {prediction} | "
    assert judge(prompt, temperature=0.0) == score


def test_the_stub_judge_answers_the_prompt_of_another_benchmark_with_no_valid_option() -> None:
    assert judge("Options: A. x\nYour output: ", temperature=0.0) == "Z"  # the only option is A
