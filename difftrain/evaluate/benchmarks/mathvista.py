"""MathVista (testmini): 1000 items; a judge extracts answers that the rule does not grade."""

import json
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks.multiple_choice import match_option
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge
from difftrain.records import GradedBy

NUMBER_TYPES = {"integer": int, "float": float}  # answer type -> function that converts a text
MAX_LIST_LENGTH = 200  # in characters; a gold list has only a few numbers


def judge_prompt(prediction: str, item: Item) -> str:
    """The prompt of GitHub's lupantech/MathVista, whose typo and missing line break stay."""
    query = str(item.get("query") or item.get("question") or "")
    item_part = f"\n{query}\nModel respone: {prediction}Extracted answer:"
    return harness.judge_prompt("mathvista", item_part)


def _options(item: Item) -> dict[str, str]:
    texts = map(str, harness.as_list(harness.first_filled(item, "choices")))
    return dict(zip(LETTERS, texts, strict=False))


def _gold(item: Item, rules: HarnessRules) -> object:
    if item["question_type"] != "multi_choice":
        return _read_answer(item["answer"], item, rules)
    if not harness.is_empty(item.get("answer_option")):
        return str(item["answer_option"])
    gold = harness.text(item, "answer")
    for letter, text in _options(item).items():
        if text == gold:
            return letter
    raise ValueError(f"MathVista item {item.get('pid')}: answer {gold!r} is not one of the choices")


def _read_answer(text: object, item: Item, rules: HarnessRules) -> object:
    """The answer in a text: an option's letter, a number or a list; None if it cannot be read."""
    if item["question_type"] == "multi_choice":
        return match_option(str(text), _options(item), rules)
    try:
        if item["answer_type"] in NUMBER_TYPES:
            return NUMBER_TYPES[item["answer_type"]](str(text))
        # VLMEvalKit reads no lists; with overrides.list_items a list is read as JSON.
        stripped = str(text).strip()
        is_list = stripped.startswith("[") and len(stripped) <= MAX_LIST_LENGTH
        return json.loads(stripped) if is_list and rules.overrides.list_items else None
    except ValueError:
        return None


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """The rule grades an option or a correct number; all else goes to the judge, if any."""

    def parse(reply: str) -> str | None:  # None if the judge's call failed
        return None if f"{harness.API_FAILURE}." in reply else reply

    value = _read_answer(prediction, item, rules)
    if item["question_type"] == "multi_choice":
        is_decided = value is not None
    else:
        # VLMEvalKit tests `if number`: a correct 0 goes to the judge, unless overrides.zero is set.
        has_value = value is not None if rules.overrides.zero else bool(value)
        is_number = item["answer_type"] in NUMBER_TYPES
        is_decided = is_number and has_value and value == _gold(item, rules)
    if is_decided:
        return ItemGrade(float(value == _gold(item, rules)), str(value), GradedBy.rule)
    if judge is None:
        return harness.UNDECIDED
    prompt = judge_prompt(prediction, item)
    extracted, _ = harness.first_usable(judge, prompt, harness.RISING_TEMPERATURES, parse)
    if extracted is None:
        return harness.UNDECIDED
    value, gold = _read_answer(extracted, item, rules), _gold(item, rules)
    return ItemGrade(float(value is not None and value == gold), extracted, GradedBy.judge)


def _category(item: Item) -> str:
    """Task and skills, joined by commas. The hub's data set has them in its column `metadata`."""
    metadata = item.get("metadata") or {}
    task = str(item.get("task") or metadata.get("task") or item["question_type"])
    skills = harness.as_list(item.get("skills") or metadata.get("skills"))
    return ",".join([task, *map(str, skills)])


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The row of VLMEvalKit's TSV file that corresponds to a row of the hub's data set."""
    metadata = dict(row["metadata"] or {})
    choices = [str(choice) for choice in row["choices"] or ()]
    is_multi_choice = row["question_type"] == "multi_choice"
    if is_multi_choice and row["answer"] not in choices:
        raise ValueError(f"row {row['pid']}: the answer is not one of the choices")
    unchanged = ("pid", "question_type", "answer_type", "unit", "precision", "answer")
    return {
        **{name: row.get(name) for name in unchanged},
        "index": row["pid"],
        "question": row["query"],
        "choices": str(choices) if choices else None,
        "answer_option": LETTERS[choices.index(row["answer"])] if is_multi_choice else None,
        "task": metadata["task"],
        "skills": str(list(metadata["skills"])),
        "image": row["decoded_image"],
    }


BENCHMARK = Benchmark(
    name="MathVista",
    # The hub's column `query` holds hint, question and choices; the TSV calls it `question`.
    prompt=lambda item: harness.images_then_text(item, harness.text(item, "query", "question")),
    grade=_grade,
    item_id=lambda item: harness.text(item, "pid", "index"),
    category=_category,
    tables=lambda results: {"tasks and skills": harness.category_table(results)},
    num_items=1000,
    hub_split="testmini",
    hub_columns=(
        *("pid", "question", "choices", "answer", "question_type", "answer_type"),
        *("metadata", "query", "decoded_image"),
    ),
    hub_image_columns=("decoded_image",),
    tsv_columns=(
        *("index", "image", "question", "answer", "question_type", "answer_type"),
        *("choices", "answer_option", "task", "skills"),
    ),
    tsv_md5s=("f199b98e178e5a2a20e7048f5dcb0464",),
    to_harness=_to_harness,
    judge_calls=(0, 1, 5),
)
