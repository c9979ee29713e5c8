"""HallusionBench: 951 yes/no questions on figures; most figures exist in edited versions too."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Table
from difftrain.records import GradedBy, ItemResult

ID_COLUMNS = ("category", "subcategory", "set_id", "figure_id", "question_id")
# VLMEvalKit removes punctuation as the official scorer of the VQA data set does.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(
    r"(?<!\d)\.(?!\d)"
)  # not that of 1.5, nor that of the numbered line "1. It is"
_PERIODS_REMOVED = 32  # without all_periods: VLMEvalKit passes re.UNICODE (32) as the `count`


def yes_or_no(text: str, all_periods: bool = False) -> str | None:
    """Yes or No if exactly one of the two words occurs in the text without punctuation."""
    lowered = text.lower()
    has_number_with_comma = _DIGIT_COMMA_DIGIT.search(lowered) is not None
    cleaned = lowered
    for mark in _PUNCTUATION:
        is_beside_blank = f"{mark} " in lowered or f" {mark}" in lowered
        cleaned = cleaned.replace(mark, "" if is_beside_blank or has_number_with_comma else " ")
    words = _PERIOD.sub("", cleaned, count=0 if all_periods else _PERIODS_REMOVED).split()
    if ("yes" in words) == ("no" in words):
        return None
    return "Yes" if "yes" in words else "No"


def _gold(item: Item) -> str:
    answer = harness.text(item, "answer", "gt_answer").strip()
    return {"1": "Yes", "0": "No"}.get(answer, answer)  # the hub's data set has 1 and 0


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """Compare the gold answer with the prediction's yes or no, or else with the judge's."""

    def parse(text: str) -> str | None:
        return yes_or_no(text, rules.overrides.all_periods)

    answer, graded_by = parse(prediction), GradedBy.rule
    if answer is None and judge is not None:
        question = f"Question: {harness.text(item, 'question')}?\n"  # the judge gets no gold answer
        response = f"Answer: {prediction}\nYour output: "
        prompt = harness.judge_prompt("hallusionbench", question, response)
        answer, _ = harness.first_usable(judge, prompt, harness.RISING_TEMPERATURES, parse)
        graded_by = GradedBy.judge
    if answer is None:
        return harness.UNDECIDED
    return ItemGrade(float(answer == _gold(item)), answer, graded_by)


def _item_id(item: Item) -> str:
    """category/set/figure/question: set 0, for example, exists in every category."""
    if "set_id" in item:
        ids = [harness.text(item, column) for column in ID_COLUMNS[2:]]  # set, figure, question
    else:
        ids = harness.text(item, "index").split("_")[3:6]  # in VLMEvalKit's TSV: x_VD_map_1_0_2
    if len(ids) < 3:
        rule = "its parts 4 to 6, separated by _, must be set, figure and question"
        raise ValueError(f"the index {harness.text(item, 'index')} is too short: {rule}")
    return "/".join([_category(item), *ids[:3]])


def _category(item: Item) -> str:
    """VLMEvalKit's l2-category: VD_illusion, VS_chart, ..."""
    for column in ("l2-category", "l2_category"):
        if not harness.is_empty(item.get(column)):
            return str(item[column])
    return f"{harness.text(item, 'category')}_{harness.text(item, 'subcategory')}"


def figure_of(item_id: str) -> str:
    """The figure of an item id, as category/set/figure. All questions on it share one image."""
    return item_id.rpartition("/")[0]


def accuracies(score_by_item_id: Mapping[str, float | None]) -> harness.TableRow:
    """Three accuracies: the shares of items that are right (aAcc), of figures on which all
    questions are right (fAcc), and of questions that are right on all figures of their set (qAcc).

    An unscored item (None) is not in aAcc, its figure not in fAcc, its question not in qAcc;
    `figures_left_out` and `questions_left_out` count these. An accuracy over nothing is None.
    """
    figures: dict[str, list[float | None]] = defaultdict(list)
    questions: dict[tuple[str, ...], list[float | None]] = defaultdict(list)
    for item_id, score in score_by_item_id.items():
        category, set_id, _, question_id = item_id.rsplit("/", 3)
        figures[figure_of(item_id)].append(score)
        questions[category, set_id, question_id].append(score)
    scored = [score for score in score_by_item_id.values() if score is not None]
    figure_scores, question_scores = (
        [all(score == 1 for score in scores) for scores in groups.values() if None not in scores]
        for groups in (figures, questions)
    )
    columns = {"aAcc": scored, "fAcc": figure_scores, "qAcc": question_scores}
    means = {name: sum(v) / len(v) if v else None for name, v in columns.items()}
    present = [mean for mean in means.values() if mean is not None]
    return {
        "n": len(scored),
        **means,
        "average": sum(present) / 3 if len(present) == 3 else None,
        "figures_left_out": len(figures) - len(figure_scores),
        "questions_left_out": len(questions) - len(question_scores),
    }


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """Accuracies over all items, VD (visual dependent), VS (visual supplement), each category."""
    scores: dict[str, dict[str, float | None]] = {harness.OVERALL: {}, "VD": {}, "VS": {}}
    scores |= {name: {} for name in sorted({result.category for result in results})}
    for result in results:
        for name in {harness.OVERALL, result.category.partition("_")[0], result.category}:
            if name in scores:
                scores[name][result.item_id] = result.score
    return {"subsets": {name: accuracies(group) for name, group in scores.items()}}


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row as in VLMEvalKit's TSV file. The first part of its index, "hub", has no meaning."""
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
    num_items=951,
    hub_split="image",
    hub_columns=(*ID_COLUMNS, "question", "gt_answer", "image"),
    tsv_columns=("index", "image", "question", "answer", "category", "l2-category"),
    tsv_md5s=("0c23ac0dc9ef46832d7a24504f2a0c7c",),
    to_harness=_to_harness,
    judge_calls=(0, 1, 5),
)
