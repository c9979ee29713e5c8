"""MathVerse (testmini): 788 problems in five versions, with ever more of the text in the image.

A judge extracts the answer of every response. If it is not the gold answer, the judge scores it.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import (
    Benchmark,
    HarnessRules,
    Item,
    ItemGrade,
    Judge,
    Part,
    Table,
    TableRow,
)
from difftrain.records import GradedBy, ItemResult

VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
HARNESS_NAMES = (
    "MathVerse_MINI",
    *(f"MathVerse_MINI_{name.replace(' ', '_')}" for name in VERSIONS),
)
"""VLMEvalKit's names: all versions together, and each version alone."""
VERDICTS = {"0": 0.0, "1": 1.0}  # the judge's reply -> score


def extract_prompt(prediction: str) -> str:
    """The prompt that asks for the answer in a response; from GitHub's ZrrSkywalker/MathVerse."""
    item_part = f"Model response: '{prediction}'\nExtracted Answer: "
    return harness.judge_prompt("mathverse_extract", item_part)


def score_prompt(extraction: str, question: str, gold: str) -> str:
    """The prompt that asks whether two answers agree, with VLMEvalKit's indented lines."""
    lines = (f"[Question]: {question}", f"[Standard Answer]: {gold}")
    lines += (f"[Model_answer] : {extraction}", "Judgement:")
    return harness.judge_prompt("mathverse_score", *(f"\n    {line}" for line in lines))


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """The judge extracts the answer; one that is not the gold answer needs the judge's 0 or 1.

    If the judge extracts nothing, VLMEvalKit asks whether `nan` is right, and believes the reply.
    """
    if judge is None:
        return harness.UNDECIDED
    prompt, temperatures = extract_prompt(prediction), harness.RISING_TEMPERATURES
    extraction, _ = harness.first_usable(judge, prompt, temperatures, harness.usable_text)
    usable_replies = int(extraction is not None)
    # The harness reads all three from a table.
    cells = (item.get("question_for_eval"), harness.first_filled(item, "answer"), extraction)
    question, gold, answer = (harness.table_text(cell, rules) for cell in cells)
    if answer.strip() == gold.strip():
        score = 1.0
    else:
        prompt = score_prompt(answer, question, gold)
        try:
            score, _ = harness.first_usable(
                judge, prompt, temperatures, lambda reply: VERDICTS.get(reply.strip())
            )
        except harness.JudgeDown as error:  # the extraction was a usable reply
            return ItemGrade(None, error=str(error), usable_replies=usable_replies)
        usable_replies += int(score is not None)
    if score is None:
        return replace(harness.UNDECIDED, usable_replies=usable_replies)
    return ItemGrade(score, extraction or "", GradedBy.judge, usable_replies=usable_replies)


def _metadata(item: Item) -> Mapping[str, Any]:
    """The column `metadata`: a dictionary, or the text of one."""
    cell = item.get("metadata")
    value = ast.literal_eval(cell) if isinstance(cell, str) else cell
    if not isinstance(value, Mapping):
        raise ValueError(f"metadata={cell!r}: must be a dictionary with subject and subfield")
    return value


def _category(item: Item) -> str:
    """Version, subject and subfield, joined by commas."""
    source = item if "subject" in item else _metadata(item)
    cells = [harness.text(source, name) for name in ("subject", "subfield")]
    return ",".join([harness.text(item, "problem_version"), *cells])


def _problem(item: Item) -> str | None:
    """The problem of which the item is one version, if the item says so."""
    number = item.get("problem_index")
    return None if harness.is_empty(number) else str(number)


def _item_id(item: Item) -> str:
    """PROBLEM/INDEX, or INDEX alone if the item does not name its problem."""
    index = harness.text(item, "index", "sample_index")
    return f"{problem}/{index}" if (problem := _problem(item)) else index


def _version_row(results: Sequence[ItemResult]) -> TableRow:
    """Accuracy over all items, by subject and by subfield (two subfields have two subjects)."""
    scores: dict[str, list[float]] = defaultdict(list)
    for result in results:
        if result.score is not None:
            for name in (harness.OVERALL, *result.category.split(",")[1:]):
                scores[name].append(result.score)
    first, *names = scores or [harness.OVERALL]
    means = {
        name: sum(scores[name]) / len(scores[name]) for name in (first, *sorted(names)) if scores
    }
    return {"n": len(scores[harness.OVERALL]), **(means or {first: None})}


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """A row over all items (VLMEvalKit has none), then one per version."""
    rows = {harness.OVERALL: _version_row(results)}
    for name in _versions(results):
        members = [result for result in results if result.category.split(",")[0] == name]
        rows[name] = _version_row(members)
    return {"versions": rows}


def _versions(results: Iterable[ItemResult]) -> list[str]:
    """The versions that occur, in the order of the paper."""
    present = {result.category.split(",")[0] for result in results}
    return [*(name for name in VERSIONS if name in present), *sorted(present.difference(VERSIONS))]


def harness_figures(results: Sequence[ItemResult]) -> dict[str, float]:
    """VLMEvalKit's table, as `VERSION COLUMN` -> accuracy, and the mean over the versions."""
    rows = _tables(results)["versions"]
    del rows[harness.OVERALL]
    figures = {
        f"{version} {column}": float(value)
        for version, row in rows.items()
        for column, value in row.items()
        if column != "n" and value is not None
    }
    overall = [row[harness.OVERALL] for row in rows.values()]
    scored = [float(value) for value in overall if value is not None]
    return ({harness.OVERALL: sum(scored) / len(scored)} if scored else {}) | figures


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The row of VLMEvalKit's TSV file for a row of the hub's data set."""
    unchanged = (
        "problem_index",
        "problem_version",
        "answer",
        "question_type",
        "query_cot",
        "image",
    )
    question = row.get("question_for_eval")
    return {
        **{name: row[name] for name in unchanged},
        "index": str(row["sample_index"]),
        "question": row["query_wo"],
        "question_for_eval": row["question"] if harness.is_empty(question) else question,
        "metadata": str(dict(row["metadata"])),
    }


def _complete_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with a question for the judge in each.

    In the hub's data set, the version Vision Only has no question, because its image shows it. It
    gets that of the problem's version with the least text.
    """
    questions: dict[object, str] = {}
    for version in VERSIONS:  # the last one wins
        for row in rows:
            question = row["question_for_eval"]
            if row["problem_version"] == version and not harness.is_empty(question):
                questions[row["problem_index"]] = question
    for row in rows:
        if harness.is_empty(row["question_for_eval"]):
            row["question_for_eval"] = questions.get(row["problem_index"])
    return rows


def _cot_prompt(item: Item) -> list[Part]:
    return harness.images_then_text(item, harness.text(item, "query_cot"))


BENCHMARK = Benchmark(
    name="MathVerse",
    grade=_grade,
    item_id=_item_id,
    category=_category,
    tables=_tables,
    num_items=3940,
    hub_split="testmini",
    hub_columns=(
        *("sample_index", "problem_index", "problem_version", "question", "image", "answer"),
        *("question_type", "metadata", "query_wo", "query_cot"),
    ),
    tsv_columns=(
        *("index", "image", "question", "question_for_eval", "answer"),
        *("problem_version", "metadata"),
    ),
    tsv_md5s=("5017caca32b7fa110c350a1bea861b65",),
    to_harness=_to_harness,
    complete_rows=_complete_rows,
    hub_configs=("testmini",),
    problem=_problem,
    reads_tables=True,
    judge_calls=(1, 2, 10),
)
COT_VARIANT = replace(BENCHMARK, prompt=_cot_prompt)
"""VLMEvalKit's MathVerse_MINI_Vision_Only_cot: its prompt asks to reason first."""
