"""LogicVista: 447 questions on five skills; a judge extracts the letters of every response."""

from collections.abc import Sequence
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Table
from difftrain.records import GradedBy, ItemResult

SKILLS = ("inductive", "deductive", "numerical", "spatial", "mechanical")


def judge_prompt(prediction: str, question: str) -> str:
    """VLMEvalKit's prompt; the judge extracts the letters without the gold answer."""
    question_part = f"Question: <start>\n{question}\n<end>\n"
    answer_part = f"Answer: <start>\n{prediction}\n<end>\nYour output: "
    return harness.judge_prompt("logicvista", question_part, answer_part)


def _letters(reply: str) -> str | None:
    """A reply of capital letters only; any word in capitals is usable, and wrong."""
    stripped = reply.strip()
    return stripped if stripped.isalpha() and stripped.isupper() else None


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """1 if the judge's letters are those of the gold answer, in any order; repeated ones count.

    A gold answer of several letters is like `A, C`. The gold answer 3 can never be given.
    """
    gold = harness.table_text(harness.first_filled(item, "answer"), rules).split(", ")
    if judge is None:
        return harness.UNDECIDED
    prompt = judge_prompt(prediction, harness.table_text(item.get("question"), rules))
    reply, _ = harness.first_usable(judge, prompt, harness.RISING_TEMPERATURES, _letters)
    if reply is None:
        return harness.UNDECIDED
    letters = "".join(sorted(letter.lower() for letter in reply))
    is_right = letters == "".join(sorted(part.lower() for part in gold))
    return ItemGrade(float(is_right), reply, GradedBy.judge)


def _category(item: Item) -> str:
    """The skills, joined by commas."""
    return ",".join(map(str, harness.as_list(harness.first_filled(item, "skill"))))


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """A row over all items, then one per skill; an item counts if its skills contain the name."""
    rows = {harness.OVERALL: harness.table_row(results)}
    for skill in SKILLS:
        rows[skill] = harness.table_row(result for result in results if skill in result.category)
    return {"skills": rows}


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The row of VLMEvalKit's TSV file for a row of the hub's data set."""
    return {
        **{name: row[name] for name in ("question", "answer", "image")},
        "index": str(number),
        "skill": str(harness.as_list(row["skill"])),
    }


def _complete_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the official item v1_382, which has neither question nor answer."""
    keys = ("question", "answer")
    return [row for row in rows if not all(harness.is_empty(row[key]) for key in keys)]


BENCHMARK = Benchmark(
    name="LogicVista",
    grade=_grade,
    item_id=lambda item: harness.text(item, "index"),
    category=_category,
    tables=_tables,
    num_items=447,
    hub_split="test",
    hub_columns=("question", "answer", "skill", "image"),
    tsv_columns=("index", "image", "question", "answer", "skill"),
    tsv_md5s=("41c5d33adf33765c399e0e6ae588c061",),
    to_harness=_to_harness,
    complete_rows=_complete_rows,
    reads_tables=True,
    judge_calls=(1, 1, 5),
)
