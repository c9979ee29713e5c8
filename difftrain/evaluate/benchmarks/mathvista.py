"""MathVista (testmini): 1000 items; a judge extracts the answer where the rule cannot."""

import json
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks.multiple_choice import match_option
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge
from difftrain.records import GradedBy

MAX_LIST_LENGTH = 200
"""Characters of a list of a few numbers as an answer."""


def judge_prompt(prediction: str, item: Item) -> str:
    """The extractor's prompt (the missing letter and the missing line break are the original's).

    Its examples are the benchmark's own (lupantech/MathVista).
    """
    query = str(item.get("query") or item.get("question") or "")
    last = f"\n{query}\nModel respone: {prediction}Extracted answer:"
    return harness.judge_prompt("mathvista", last)


def _options(item: Item) -> dict[str, str]:
    texts = map(str, harness.as_list(harness.first(item, "choices")))
    return dict(zip(LETTERS, texts, strict=False))


def _gold_letter(item: Item, options: dict[str, str]) -> str:
    if not harness.is_empty(item.get("answer_option")):
        return str(item["answer_option"])
    gold = harness.text(item, "answer")
    for letter, text in options.items():
        if text == gold:
            return letter
    raise ValueError(f"MathVista item {item.get('pid')}: answer {gold!r} is not one of the choices")


def _number(text: object, kind: str) -> int | float | None:
    """What Python's own int() or float() makes of the text."""
    try:
        return int(str(text)) if kind == "integer" else float(str(text))
    except ValueError:
        return None


def _parse_list(text: object) -> list[object] | None:
    """A list of numbers as JSON, which is also how Python writes it; None if the text is none."""
    stripped = str(text).strip()
    if not stripped.startswith("[") or len(stripped) > MAX_LIST_LENGTH:
        return None
    try:
        return json.loads(stripped)
    except ValueError:
        return None


def _grade_by_rule(prediction: str, item: Item, rules: HarnessRules) -> ItemGrade | None:
    """What the rule alone decides; a wrong number, and a right 0, are left to the judge."""
    if item["question_type"] == "multi_choice":
        options = _options(item)
        letter = match_option(prediction, options, rules)
        if letter is None:
            return None
        return ItemGrade(float(letter == _gold_letter(item, options)), letter, GradedBy.rule)
    if item["answer_type"] not in ("integer", "float"):
        return None
    number = _number(prediction, item["answer_type"])
    # The reference tests the number for truth, so a right 0 is "nothing found".
    usable = number is not None if rules.overrides.zero else bool(number)
    if usable and number == _number(item["answer"], item["answer_type"]):
        return ItemGrade(1.0, str(number), GradedBy.rule)
    return None


def _is_correct(extracted: str, item: Item, rules: HarnessRules) -> bool:
    if item["question_type"] == "multi_choice":
        options = _options(item)
        return match_option(extracted, options, rules) == _gold_letter(item, options)
    kind = item["answer_type"]
    if kind not in ("integer", "float"):
        # The reference has no rule for lists: its branch never says right.
        parsed = _parse_list(extracted) if rules.overrides.list_items else None
        return parsed is not None and parsed == _parse_list(item["answer"])
    number = _number(extracted, kind)
    return number is not None and number == _number(item["answer"], kind)


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """The rule's answer; else what the judge extracts, compared with the gold by the same rule.

    Five failed calls are undecided and give 0, as in the reference.
    """

    def parse(reply: str) -> str | None:
        return None if harness.API_FAILURE in reply else reply

    if by_rule := _grade_by_rule(prediction, item, rules):
        return by_rule
    if judge is None:
        return harness.UNDECIDED
    prompt = judge_prompt(prediction, item)
    extracted, _ = harness.first_usable(judge, prompt, harness.RISING, parse)
    if extracted is None:
        return harness.UNDECIDED
    return ItemGrade(float(_is_correct(extracted, item, rules)), extracted, GradedBy.judge)


def _category(item: Item) -> str:
    """The task and the skills, joined by commas: columns (TSV), or inside `metadata` (data set)."""
    metadata = item.get("metadata") or {}
    task = str(item.get("task") or metadata.get("task") or item["question_type"])
    skills = harness.as_list(item.get("skills") or metadata.get("skills"))
    return ",".join([task, *map(str, skills)])


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The query is the question, and the gold gets its letter."""
    metadata = dict(row["metadata"] or {})
    choices = [str(choice) for choice in row["choices"] or ()]
    multi_choice = row["question_type"] == "multi_choice"
    if multi_choice and row["answer"] not in choices:
        raise ValueError(f"row {row['pid']}: the answer is not one of the choices")
    same = ("pid", "question_type", "answer_type", "unit", "precision", "answer")
    return {
        **{name: row.get(name) for name in same},
        "index": row["pid"],
        "question": row["query"],
        "choices": str(choices) if choices else None,
        "answer_option": LETTERS[choices.index(row["answer"])] if multi_choice else None,
        "task": metadata["task"],
        "skills": str(list(metadata["skills"])),
        "image": row["decoded_image"],
    }


BENCHMARK = Benchmark(
    name="MathVista",
    # The query holds hint, question and choices; the TSV calls it `question`.
    prompt=lambda item: harness.images_then_text(item, harness.text(item, "query", "question")),
    grade=_grade,
    item_id=lambda item: harness.text(item, "pid", "index"),
    category=_category,
    tables=lambda results: {"tasks and skills": harness.category_table(results)},
    count=1000,
    split="testmini",
    columns=(
        *("pid", "question", "choices", "answer", "question_type", "answer_type"),
        *("metadata", "query", "decoded_image"),
    ),
    image_columns=("decoded_image",),
    tsv_columns=(
        *("index", "image", "question", "answer", "question_type", "answer_type"),
        *("choices", "answer_option", "task", "skills"),
    ),
    md5=("f199b98e178e5a2a20e7048f5dcb0464",),
    to_harness=_to_harness,
)
