"""HallusionBench: 951 yes/no questions; figures come in original and edited pairs."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Table
from difftrain.records import GradedBy, ItemResult

ID_COLUMNS = ("category", "subcategory", "set_id", "figure_id", "question_id")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32
"""The reference passes a flag (re.UNICODE is 32) where the number of replacements belongs."""


def yes_or_no(text: str, every_period: bool = False) -> str | None:
    """Yes or No if the one word occurs and the other does not, after VQA-style clearing."""
    lowered = text.lower()
    joined = _DIGIT_COMMA_DIGIT.search(lowered) is not None
    cleared = lowered
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in lowered or f" {mark}" in lowered
        cleared = cleared.replace(mark, "" if beside_blank or joined else " ")
    words = _PERIOD.sub("", cleared, count=0 if every_period else _PERIODS_REMOVED).split()
    if ("yes" in words) == ("no" in words):
        return None
    return "Yes" if "yes" in words else "No"


def _gold(item: Item) -> str:
    answer = harness.text(item, "answer", "gt_answer").strip()
    return {"1": "Yes", "0": "No"}.get(answer, answer)  # the official file writes 1 and 0


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """By the yes/no rule, else by the judge's reply under the same rule; unknown is wrong."""

    def parse(text: str) -> str | None:
        return yes_or_no(text, rules.overrides.all_periods)

    answer, graded_by = parse(prediction), GradedBy.rule
    if answer is None and judge is not None:
        question = f"Question: {harness.text(item, 'question')}?\n"  # the gold is not shown
        last = f"Answer: {prediction}\nYour output: "
        prompt = harness.judge_prompt("hallusionbench", question, last)
        answer, _ = harness.first_usable(judge, prompt, harness.RISING, parse)
        graded_by = GradedBy.judge
    if answer is None:
        return harness.UNDECIDED
    return ItemGrade(float(answer == _gold(item)), answer, graded_by)


def _item_id(item: Item) -> str:
    """category/set/figure/question; the category is needed, ids repeat across categories."""
    if "set_id" in item:
        ids = [harness.text(item, column) for column in ID_COLUMNS[2:]]
    else:
        ids = harness.text(item, "index").split("_")[3:6]
    if len(ids) < 3:
        rule = "set, figure and question are its parts 4 to 6"
        raise ValueError(f"the index {harness.text(item, 'index')} is too short: {rule}")
    return "/".join([_category(item), *ids[:3]])


def _category(item: Item) -> str:
    """The harness's l2-category: VD_illusion, VS_chart, ..."""
    for column in ("l2-category", "l2_category"):
        if not harness.is_empty(item.get(column)):
            return str(item[column])
    return f"{harness.text(item, 'category')}_{harness.text(item, 'subcategory')}"


def figure_of(item_id: str) -> str:
    """The figure part of an item id: category/set/figure. Its questions share one image."""
    return item_id.rpartition("/")[0]


def accuracies(score_by_item_id: Mapping[str, float | None]) -> harness.TableRow:
    """aAcc, fAcc, qAcc from the scores of all items by item id, None where there is none.

    Fractions of 1: of questions, of figures all right, of questions right on every figure. A figure
    or question with an item without a score counts in `figures_left_out` or `questions_left_out`
    and in no accuracy. An accuracy over nothing is None.
    """
    figures: dict[str, list[float | None]] = defaultdict(list)
    questions: dict[tuple[str, ...], list[float | None]] = defaultdict(list)
    for identity, score in score_by_item_id.items():
        name, set_id, _, question_id = identity.rsplit("/", 3)
        figures[figure_of(identity)].append(score)
        questions[name, set_id, question_id].append(score)
    scored = [score for score in score_by_item_id.values() if score is not None]
    right_figures, right_questions = (
        [all(score == 1 for score in scores) for scores in groups.values() if None not in scores]
        for groups in (figures, questions)
    )
    columns = {"aAcc": scored, "fAcc": right_figures, "qAcc": right_questions}
    means = {name: sum(each) / len(each) if each else None for name, each in columns.items()}
    present = [mean for mean in means.values() if mean is not None]
    return {
        "n": len(scored),
        **means,
        "average": sum(present) / 3 if len(present) == 3 else None,
        "figures_left_out": len(figures) - len(right_figures),
        "questions_left_out": len(questions) - len(right_questions),
    }


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """aAcc, fAcc, qAcc and their mean: overall, by VD and VS, by category."""
    scores: dict[str, dict[str, float | None]] = {harness.OVERALL: {}, "VD": {}, "VS": {}}
    scores |= {name: {} for name in sorted({result.category for result in results})}
    for result in results:
        for name in {harness.OVERALL, result.category.partition("_")[0], result.category}:
            if name in scores:
                scores[name][result.item_id] = result.score
    return {"subsets": {name: accuracies(group) for name, group in scores.items()}}


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    name = f"{row['category']}_{row['subcategory']}"
    return {
        **{column: row[column] for column in ("category", "question", "image")},
        "index": "_".join(["hub", name, *(str(row[column]) for column in ID_COLUMNS[2:])]),
        "l2-category": name,
        "answer": _gold(row),
    }


BENCHMARK = Benchmark(
    name="HallusionBench",
    grade=_grade,
    item_id=_item_id,
    category=_category,
    tables=_tables,
    count=951,
    split="image",
    columns=(*ID_COLUMNS, "question", "gt_answer", "image"),
    tsv_columns=("index", "image", "question", "answer", "category", "l2-category"),
    md5=("0c23ac0dc9ef46832d7a24504f2a0c7c",),
    to_harness=_to_harness,
)
