"""MM-Vet: 218 open questions; a judge gives every response a score of 0.0 to 1.0."""

import math
from collections.abc import Sequence
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Table
from difftrain.records import GradedBy, ItemResult

_MEME = (
    "Can you explain this meme? | This meme is poking fun at the fact that the names of the "
    "countries Iceland and Greenland are misleading. Despite its name, Iceland is known for its "
    "beautiful green landscapes, while Greenland is mostly covered in ice and snow. The meme is "
    "saying that the person has trust issues because the names of these countries do not "
    "accurately represent their landscapes. | "
)
JUDGE_PROMPT = (
    "Compare the ground truth and prediction from AI models, to give a correctness score for the "
    "prediction. <AND> in the ground truth means it is totally right only when all elements in "
    "the ground truth are present in the prediction, and <OR> means it is totally right when any "
    "one element in the ground truth is present in the prediction. The correctness score is 0.0 "
    "(totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). Just "
    "complete the last space of the correctness score.\n\n"
    "Question | Ground truth | Prediction | Correctness\n"
    "--- | --- | --- | ---\n"
    "What is x in the equation? | -1 <AND> -5 | x = 3 | 0.0\n"
    "What is x in the equation? | -1 <AND> -5 | x = -1 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -5 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -5 or 5 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -1 or x = -5 | 1.0\n"
    f"{_MEME}The meme talks about Iceland and Greenland. It's pointing out that despite their "
    "names, Iceland is not very icy and Greenland isn't very green. | 0.4\n"
    f"{_MEME}The meme is using humor to point out the misleading nature of Iceland's and "
    "Greenland's names. Iceland, despite its name, has lush green landscapes while Greenland is "
    "mostly covered in ice and snow. The text 'This is why I have trust issues' is a playful way "
    "to suggest that these contradictions can lead to distrust or confusion. The humor in this "
    "meme is derived from the unexpected contrast between the names of the countries and their "
    "actual physical characteristics. | 1.0\n"
)
"""The benchmark's own protocol (yuweihao/MM-Vet, Apache-2.0); another wording is another metric."""


def judge_prompt(prediction: str, item: Item) -> str:
    """The table with this item as its last, unfinished row."""
    gold = harness.text(item, "answer")
    gold = gold.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return JUDGE_PROMPT + " | ".join([harness.text(item, "question"), gold, prediction, ""])


def grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    """The judge's number, requested up to five times; five replies without one count as 0.

    A reply of `nan` is a number to the reference and spoils its mean; here it gives no score.
    """
    if judge is None:
        return harness.UNDECIDED

    def parse(reply: str) -> ItemGrade | None:
        try:
            score = float(reply)
        except ValueError:
            return None
        if math.isnan(score):
            return ItemGrade(None, reply.strip(), None, "the judge's score is nan")
        return ItemGrade(score, reply.strip(), GradedBy.judge) if 0 <= score <= 1 else None

    text = judge_prompt(prediction, item)
    return harness.first_usable(judge, text, harness.RISING, parse)[0] or harness.UNDECIDED


def category(item: Item) -> str:
    """The capabilities, joined by commas."""
    return ",".join(map(str, harness.as_list(harness.first(item, "category", "capability"))))


def tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """Capabilities, and exact combinations of them."""
    combinations = {
        name.replace(",", "_"): harness.table_row(
            result for result in results if result.category == name
        )
        for name in sorted({result.category for result in results})
    }
    return {
        "capabilities": harness.category_table(results),
        "combinations": {harness.OVERALL: harness.table_row(results), **combinations},
    }


def to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A hub row in the harness's columns: capabilities stand in `category`, joined by commas."""
    capability = row["capability"]
    joined = capability if isinstance(capability, str) else ",".join(map(str, capability))
    same = {name: row[name] for name in ("question", "answer", "image")}
    return same | {"index": row["question_id"], "category": joined}


BENCHMARK = Benchmark(
    name="MMVet",
    prompt=harness.images_then_question,
    grade=grade,
    item_id=lambda item: harness.text(item, "index", "question_id", "id"),
    category=category,
    tables=tables,
    count=218,
    split="test",
    columns=("question_id", "question", "answer", "capability", "image"),
    tsv_columns=("index", "image", "question", "answer", "category"),
    md5=("748aa6d4aa9d4de798306a63718455e3",),
    to_harness=to_harness,
)
