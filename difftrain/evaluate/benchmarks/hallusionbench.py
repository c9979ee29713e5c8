"""HallusionBench: 951 yes/no questions; figures come in original and edited pairs."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import (
    Benchmark,
    HarnessRules,
    Item,
    ItemGrade,
    Judge,
    Table,
    TableRow,
)
from difftrain.records import GradedBy, ItemResult

JUDGE_PROMPT = """\
You are an AI assistant who will help me to match an answer with two options of a question. The \
options are only Yes / No. You are provided with a question and an answer, and you need to find \
which option (Yes / No) is most similar to the answer. If the meaning of all options are \
significantly different from the answer, output Unknown. Your should output a single word among \
the following 3 choices: Yes, No, Unknown.
Example 1:
Question: Is the word in this image 'Hello'?
Answer: The word in this image is 'Hello'.
Your output: Yes
Example 2:
Question: Is the word in this image 'Hello'?
Answer: The word in this image is not 'Hello'.
Your output: No
Example 3:
"""
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


def gold_answer(item: Item) -> str:
    """Yes or No; the official file writes 1 and 0."""
    answer = harness.text(item, "answer", "gt_answer").strip()
    return {"1": "Yes", "0": "No"}.get(answer, answer)


def grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """By the yes/no rule, else by the judge's reply under the same rule; unknown is wrong."""

    def parse(text: str) -> str | None:
        return yes_or_no(text, rules.overrides.all_periods)

    answer, graded_by = parse(prediction), GradedBy.rule
    if answer is None and judge is not None:
        question = harness.text(item, "question")  # the gold is not shown
        prompt = f"{JUDGE_PROMPT}Question: {question}?\nAnswer: {prediction}\nYour output: "
        answer, _ = harness.first_usable(judge, prompt, harness.RISING, parse)
        graded_by = GradedBy.judge
    if answer is None:
        return harness.UNDECIDED
    return ItemGrade(float(answer == gold_answer(item)), answer, graded_by)


def item_id(item: Item) -> str:
    """category/set/figure/question; the category is needed, ids repeat across categories."""
    if "set_id" in item:
        ids = [harness.text(item, column) for column in ID_COLUMNS[2:]]
    else:
        ids = harness.text(item, "index").split("_")[3:6]
    if len(ids) < 3:
        rule = "set, figure and question are its parts 4 to 6"
        raise ValueError(f"the index {harness.text(item, 'index')} is too short: {rule}")
    return "/".join([category(item), *ids[:3]])


def category(item: Item) -> str:
    """The harness's l2-category: VD_illusion, VS_chart, ..."""
    for column in ("l2-category", "l2_category"):
        if not harness.is_empty(item.get(column)):
            return str(item[column])
    return f"{harness.text(item, 'category')}_{harness.text(item, 'subcategory')}"


def figure_of(item_id: str) -> str:
    """The figure part of an item id: category/set/figure. Its questions share one image."""
    return item_id.rpartition("/")[0]


def accuracies(score_by_item_id: Mapping[str, float | None]) -> TableRow:
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
    means = [
        sum(values) / len(values) if values else None
        for values in (scored, right_figures, right_questions)
    ]
    present = [mean for mean in means if mean is not None]
    return {
        "n": len(scored),
        **dict(zip(("aAcc", "fAcc", "qAcc"), means, strict=True)),
        "average": sum(present) / 3 if len(present) == 3 else None,
        "figures_left_out": len(figures) - len(right_figures),
        "questions_left_out": len(questions) - len(right_questions),
    }


def tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """aAcc, fAcc, qAcc and their mean: overall, by VD and VS, by category."""
    names = sorted({result.category for result in results})
    prefixes = {harness.OVERALL: "", "VD": "VD_", "VS": "VS_"}
    members = {
        group: [result for result in results if result.category.startswith(prefix)]
        for group, prefix in prefixes.items()
    }
    members |= {name: [r for r in results if r.category == name] for name in names}
    return {
        "subsets": {
            name: accuracies({result.item_id: result.score for result in some})
            for name, some in members.items()
        }
    }


def to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A hub row in the harness's columns; the index holds set, figure, question as parts 4 to 6."""
    ids = "_".join(str(row[column]) for column in ID_COLUMNS[2:])
    name = f"{row['category']}_{row['subcategory']}"
    return {
        **{column: row[column] for column in ("category", "question", "image")},
        "index": f"hub_{name}_{ids}",
        "l2-category": name,
        "answer": gold_answer(row),
    }


BENCHMARK = Benchmark(
    name="HallusionBench",
    prompt=harness.images_then_question,
    grade=grade,
    item_id=item_id,
    category=category,
    tables=tables,
    count=951,
    split="image",
    columns=(*ID_COLUMNS, "question", "gt_answer", "image"),
    tsv_columns=("index", "image", "question", "answer", "category", "l2-category"),
    md5=("0c23ac0dc9ef46832d7a24504f2a0c7c",),
    to_harness=to_harness,
)
