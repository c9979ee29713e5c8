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
from difftrain.evaluate.benchmarks import logicvista, mathverse
from difftrain.evaluate.summary import summarize
from difftrain.shapes import benchmarks, pool
from difftrain.shapes.benchmarks import judge
from difftrain.shapes.pool import Split

SIZE = 24
NAMES = (
    *("MathVista", "MMVet", "OCRBench", "HallusionBench", "MMMU", "MMStar"),
    *("MathVerse", "WeMath", "LogicVista"),
)
JUDGED = ("MMVet", "MathVerse", "LogicVista")  # no rule scores them
PROBLEM_COLUMNS = {"MathVerse": "problem_index", "WeMath": "ID"}
"""Column that names the problem of an item; the items of a problem share the drawing."""
COLUMNS = {  # of an official item, besides its image
    "MathVista": "index pid question question_type answer_type choices answer task skills",
    "MMVet": "index question answer category",
    "OCRBench": "index question answer category dataset",
    "HallusionBench": "index category l2-category set_id figure_id question_id question answer",
    "MMMU": "index id question answer split category l2-category question_type",
    "MMStar": "index question A B answer category l2_category",
    "MathVerse": "index question query_cot question_for_eval answer problem_version metadata",
    "WeMath": "index ID key question A B C D E answer requirement",
    "LogicVista": "index question answer skill",
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
    problems = {
        (name, item[PROBLEM_COLUMNS.get(name, "index")]): item["sample_id"]
        for name, rows in items.items()
        for item in rows
    }
    ids = list(problems.values())
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {sample.sample_id for sample in pool.samples(Split.pool, 600)}
    assert all(pool.in_split(id_, Split.bench) for id_ in ids)


@pytest.mark.parametrize("rules", ["2025-11", "2026-08"])  # versions of the scoring rules
@pytest.mark.parametrize("name", NAMES)
def test_the_gold_answer_scores_one_and_a_wrong_answer_zero(
    name: str, rules: str, items: dict[str, list[dict]]
) -> None:
    stub_judge = judge if name in JUDGED or name == "WeMath" else None
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


def test_mathverse_has_five_versions_of_each_problem_on_one_image(
    items: dict[str, list[dict]],
) -> None:
    versions, images_of_problem = defaultdict(list), defaultdict(set)
    for item in items["MathVerse"][: SIZE // 5 * 5]:
        versions[item["problem_index"]].append(item["problem_version"])
        images_of_problem[item["problem_index"]].add(item["image"])
        is_visual = item["problem_version"] == "Vision Only"
        assert (item["question_for_eval"] in item["question"]) != is_visual
    assert all(tuple(names) == mathverse.VERSIONS for names in versions.values())
    assert all(len(images) == 1 for images in images_of_problem.values())
    for version in mathverse.VERSIONS:  # RAP's table needs all of them
        assert any(item["problem_version"] == version for item in items["MathVerse"])


def test_wemath_s_whole_problem_is_the_sum_of_its_steps() -> None:
    by_problem = defaultdict(dict)
    for item in benchmarks.items("WeMath", 100):  # whole problems
        by_problem[item["ID"]][item["key"].partition("_")[2]] = int(item[item["answer"]])
    for group, answers in by_problem.items():
        assert len(answers) == int(group[0]) + 1
        assert answers.pop("multi") == sum(answers.values())


def test_a_part_of_the_items_of_wemath_gets_a_score_from_its_whole_problems() -> None:
    results = []
    for item in benchmarks.items("WeMath", 12):  # two problems of two steps, one of three, a part
        right = item["answer"] if item["key"] != "2steps_2" else "Z"
        grade = evaluate.grade_prediction("shapes/WeMath", right, item, judge)
        results.append(evaluate.item_result("shapes/WeMath", item, right, grade))
    summary = summarize("shapes/WeMath", results)
    # The problems of two steps are right without their second step: rote memorization, 0.
    assert (summary.score, summary.n) == (pytest.approx(1 / 3), 3)


@pytest.mark.parametrize(
    ("prediction", "reply"),
    [
        ("B", "B"),
        ("The answer is (C).", "C"),
        ("row 2", "B"),
        ("<think>A?</think><answer>D</answer>", "D"),
        ("I cannot say", "Z"),
        ("", "Z"),
    ],
)
def test_the_stub_judge_finds_the_letter_of_a_logicvista_option(
    prediction: str, reply: str
) -> None:
    question = "Which row? Select from A, B, C and D. (A) row 1 (B) row 2 (C) row 3 (D) row 4"
    assert judge(logicvista.judge_prompt(prediction, question), temperature=0.0) == reply


@pytest.mark.parametrize(
    ("extraction", "gold", "verdict"),
    [("7.0", "7", "1"), ("17", "7", "0"), ("b", "B", "1"), ("nan", "7", "0")],
)
def test_the_stub_judge_compares_mathverse_s_answers(
    extraction: str, gold: str, verdict: str
) -> None:
    prompt = mathverse.score_prompt(extraction, "How many?", gold)
    assert judge(prompt, temperature=0.0) == verdict


@pytest.mark.parametrize(
    ("prediction", "extraction"),
    [("It is 7.", "7"), ("The answer is B", "B"), ("", "nan"), ("A or B?", "A or B?")],
)
def test_the_stub_judge_extracts_mathverse_s_answers(prediction: str, extraction: str) -> None:
    prompt = mathverse.extract_prompt(prediction or "nan")
    assert judge(prompt, temperature=0.0) == extraction


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
