"""The built-in shapes/ benchmarks have official formats, share no sample with the training pool,
and can be scored."""

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
COLUMNS = {
    "MathVista": "index pid question question_type answer_type choices answer task skills",
    "MMVet": "index question answer category",
    "OCRBench": "index question answer category dataset",
    "HallusionBench": "index category l2-category set_id figure_id question_id question answer",
    "MMMU": "index id question answer split category l2-category question_type",
    "MMStar": "index question A B answer category l2_category",
}


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict]]:
    return {name: benchmarks.items(name, SIZE) for name in NAMES}


def gold_of(name: str, item: dict) -> str:
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


@pytest.mark.parametrize("rules", ["2025-11", "2026-08"])
@pytest.mark.parametrize("name", NAMES)
def test_the_gold_answer_scores_one_and_a_wrong_answer_zero(
    name: str, rules: str, items: dict[str, list[dict]]
) -> None:
    judge_ = judge if name == "MMVet" else None
    for item in items[name]:
        gold = gold_of(name, item)
        wrong = {"Yes": "No", "No": "Yes", "A": "B", "B": "A"}.get(gold, "???")
        assert evaluate.score_item(name, gold, item, judge_, rules) == 1.0
        assert evaluate.score_item(name, wrong, item, judge_, rules) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_prompts_show_the_image_and_text(name: str, items: dict[str, list[dict]]) -> None:
    for item in items[name]:
        parts = evaluate.build_prompt(f"shapes/{name}", item)
        image_parts = [part["value"] for part in parts if part["type"] == "image"]
        assert image_parts == [item["image"]]
        assert all(isinstance(part["value"], str) for part in parts if part["type"] == "text")


def test_multiple_choice_prompts_equal_those_of_the_training_pool() -> None:
    item = benchmarks.items("MMStar", 1)[0]
    sample = next(s for s in pool.samples(Split.pool, 100) if s.task == item["l2_category"])
    _, _, drawn = pool.draw(Split.pool, sample.task, 0, 0)
    pool_item = {
        **item,
        "question": drawn.question,
        **dict(zip("ABCD", drawn.options, strict=False)),
    }
    assert evaluate.build_prompt("MMStar", pool_item)[-1]["value"] == prompts.user_text(
        drawn.question, drawn.options
    )


def test_open_mmmu_prompts_put_the_question_around_the_image(
    items: dict[str, list[dict]],
) -> None:
    item = next(item for item in items["MMMU"] if item["question_type"] == "open")
    first, image, rest = evaluate.build_prompt("MMMU", item)
    assert (first["value"], image["type"]) == ("Question: ", "image")
    assert rest["value"].endswith("\n")
    assert "Options" not in rest["value"]


def test_hallusionbench_has_each_question_for_two_figures_with_opposite_answers(
    items: dict[str, list[dict]],
) -> None:
    questions, figures = defaultdict(list), defaultdict(list)
    for item in items["HallusionBench"]:
        questions[item["set_id"], item["question"]].append(item["answer"])
        figures[item["set_id"], item["figure_id"]].append(item["image"])
    assert all(sorted(answers) == ["No", "Yes"] for answers in questions.values())
    assert all(len(images) == 2 and len(set(images)) == 1 for images in figures.values())


def test_the_items_cover_several_subjects_all_capabilities_and_both_forms_of_gold_answers(
    items: dict[str, list[dict]],
) -> None:
    assert len({item["l2-category"] for item in items["MMMU"]}) >= 3
    assert len({item["category"] for item in items["MMMU"]}) >= 3
    assert {item["question_type"] for item in items["MMMU"]} == {"multiple-choice", "open"}
    assert len({item["category"] for item in items["MMStar"]}) == 6
    assert any("<AND>" in item["answer"] for item in items["MMVet"])
    assert any("<OR>" in item["answer"] for item in items["MMVet"])


def test_an_unknown_shapes_benchmark_is_refused_by_name() -> None:
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
    assert judge(f"Instructions\nHow many? | {gold} | {prediction} | ", 0.0) == score


def test_the_stub_judge_gives_no_option_for_the_prompt_of_another_benchmark() -> None:
    assert judge("Options: A. x\nYour output: ", 0.0) == "Z"
