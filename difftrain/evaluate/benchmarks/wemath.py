"""WeMath (testmini): 525 problems of two or three steps; each step and each whole is an item.

The score counts problems: it tells whether a model that solves a problem also knows its steps. In
the strict score all steps must be right, in the loose one at least one.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks import multiple_choice
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

NUM_PROBLEMS = 525
NUM_STEPS = (2, 3)  # of a problem
RULE_LETTERS = "ABCDEFGH"  # that the rule without a judge accepts
REQUIREMENT = (
    "Regarding the format, please answer following the template below, and be sure to include two "
    "<> symbols:\n<Thought process>: <<your thought process>> <Answer>: <<your option>>"
)
"""The benchmark's format, which VLMEvalKit removes from a question for the judge."""
_DROPPED_MARKS = str.maketrans("", "", "<>:.")
_OPTION = re.compile(r"(?:^|;)\s*([A-Z])\.\s*(.*?)\s*(?=;\s*[A-Z]\.|\Z)", re.DOTALL)


def _question_text(item: Item) -> str:
    """The question with its lettered options, and no instruction."""
    hint = "" if harness.is_empty(item.get("hint")) else f"Hint: {item['hint']}\n"
    options = "".join(f"{letter}. {text}\n" for letter, text in harness.options(item).items())
    question = f"{hint}Question: {harness.text(item, 'question')}\n"
    return question + (f"Options:\n{options}" if options else "")


def _prompt(item: Item) -> list[Part]:
    return harness.images_then_text(item, _question_text(item))


def _cot_prompt(item: Item) -> list[Part]:
    """The prompt of WeMath_COT, with the format from the column `requirement` (`nan` if empty)."""
    cell = item.get("requirement")
    requirement = "nan" if harness.is_empty(cell) else cell
    return harness.images_then_text(item, f"{_question_text(item)}\n{requirement}")


def judge_prompt(question: str, options: Mapping[str, str], prediction: str) -> str:
    """VLMEvalKit's prompt for WeMath, which is never Chinese."""
    question_part = f"Question: <start>\n{question.replace(REQUIREMENT, '')}\n"
    options_part = f"Options: {multiple_choice.option_list(options)}\n<end>\n"
    answer_part = f"Answer: <start>\n{prediction}\n<end>\nYour output: "
    return harness.judge_prompt("wemath", question_part, options_part, answer_part)


def _cot_judge_prompt(question: str, options: Mapping[str, str], prediction: str) -> str:
    return multiple_choice.match_prompt("wemath_cot", question, options, prediction)


def official_letter(prediction: str) -> str | None:
    """The letter that the official script reads: the first one after the last word `Answer`."""
    last_part = prediction.split("Answer")[-1].strip().translate(_DROPPED_MARKS).strip()
    return last_part[0] if last_part and last_part[0] in RULE_LETTERS else None


def _grade(
    prediction: str,
    item: Item,
    judge: Judge | None,
    rules: HarnessRules,
    build_prompt: multiple_choice.BuildPrompt = judge_prompt,
) -> ItemGrade:
    """With a judge as in MMStar; without one, the official script's rule decides, as in VLMEvalKit.

    A missing prediction ends VLMEvalKit with a TypeError if there is no judge: no score. In an
    evaluation it counts as wrong.
    """
    gold = harness.text(item, "answer")
    if judge is None:
        if prediction == "nan" and not rules.texts_become_nan:
            return ItemGrade(None, error="there is no prediction, and VLMEvalKit stops (TypeError)")
        letter = official_letter(prediction)
        decided = ItemGrade(float(letter == gold), letter, GradedBy.rule)
        return harness.UNDECIDED if letter is None else decided
    dropped = set() if rules.overrides.kept_texts else harness.NAN_TEXTS
    options = {
        letter: harness.table_text(text, rules)
        for letter, text in harness.options(item).items()
        if text not in dropped
    }
    question = harness.table_text(item.get("question"), rules)
    item = {**item, "question": question}
    return multiple_choice.grade(prediction, item, options, gold, judge, rules, build_prompt)


def _cot_grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    return _grade(prediction, item, judge, rules, _cot_judge_prompt)


def _item_id(item: Item) -> str:
    """PROBLEM/KEY, such as 2steps_1/2steps_multi for the whole problem."""
    return f"{harness.text(item, 'ID')}/{harness.text(item, 'key')}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Whether each step and the whole are right; None for what is missing or has no score."""

    steps: tuple[bool | None, ...]
    whole: bool | None
    concepts: tuple[str, ...]  # of the steps

    @property
    def is_complete(self) -> bool:
        return self.whole is not None and None not in self.steps

    @property
    def score(self) -> float | None:
        """The strict score. Right without a step (rote memorization) counts 0, as does a wrong
        answer, but one half if all steps are right (inadequate generalization)."""
        if not self.is_complete:
            return None
        knows_steps = all(self.steps)
        return float(knows_steps) if self.whole else knows_steps / 2


def problems(results: Sequence[ItemResult]) -> Iterator[tuple[str, Problem]]:
    """The problem ids and problems, joined from the results as in VLMEvalKit.

    A problem without its first step is missing. If an item occurs twice, every combination of the
    items is a problem.
    """
    items: dict[str, dict[str, list[ItemResult]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        problem_id, _, key = result.item_id.rpartition("/")
        items[problem_id][key].append(result)
    for problem_id, by_key in items.items():
        for number in NUM_STEPS:
            names = [*map(str, range(1, number + 1)), "multi"]
            columns = [by_key.get(f"{number}steps_{name}") or [None] for name in names]
            if columns[0] == [None]:
                continue
            for rows in product(*columns):
                hits = [None if row is None or row.score is None else row.score > 0 for row in rows]
                concepts = tuple("" if row is None else row.category for row in rows[:-1])
                yield problem_id, Problem(tuple(hits[:-1]), hits[-1], concepts)


def problem_results(results: Sequence[ItemResult]) -> list[ItemResult]:
    """One result per problem with its strict score; their mean is the benchmark's score.

    A problem has no score if one of its items has none or is missing (evaluate.limit).
    """
    by_benchmark: dict[str, list[ItemResult]] = defaultdict(list)
    for result in results:
        by_benchmark[result.benchmark].append(result)
    scores: dict[tuple[str, str], float | None] = {}
    for name, members in by_benchmark.items():
        scores |= {(name, member.item_id.rpartition("/")[0]): None for member in members}
        scores |= {(name, id_): problem.score for id_, problem in problems(members)}
    first = {(row.benchmark, row.item_id.rpartition("/")[0]): row for row in reversed(results)}
    return [replace(first[key], item_id=key[1], score=score) for key, score in scores.items()]


def _cases(joined: Sequence[Problem], is_loose: bool) -> dict[str, int]:
    """The number of problems in each of the four cases, with the harness's names."""

    def has_steps(problem: Problem) -> bool:
        return (any if is_loose else all)(step is True for step in problem.steps)

    def lacks_steps(problem: Problem) -> bool:
        return (all if is_loose else any)(step is False for step in problem.steps)

    fails_a_step = [any(step is False for step in problem.steps) for problem in joined]
    wrong = [problem.whole is False for problem in joined]
    knows_all = [all(step is True for step in problem.steps) for problem in joined]
    right = [problem for problem in joined if problem.whole]
    return {
        "InsufficientKnowledge": sum(map(all, zip(wrong, fails_a_step, strict=True))),
        "InadequateGeneralization": sum(map(all, zip(wrong, knows_all, strict=True))),
        "CompleteMastery": sum(map(has_steps, right)),
        "RoteMemorization": sum(map(lacks_steps, right)),
    }


def _shares(cases: Mapping[str, int], total: int) -> dict[str, float | None]:
    """The score and the cases as shares of `total` problems; rote memorization as the share of the
    problems whose whole is right (None if there are none)."""
    insufficient, inadequate, mastery, rote = cases.values()
    shares: dict[str, float | None] = {name: count / total for name, count in cases.items()}
    shares["RoteMemorization"] = rote / (mastery + rote) if mastery + rote else None
    return {"Score": (total - 0.5 * inadequate - rote - insufficient) / total, **shares}


def _mean_row(hits: Sequence[bool]) -> TableRow:
    return {"n": len(hits), "score": sum(hits) / len(hits) if hits else None}


def _accuracies(joined: Sequence[Problem]) -> Table:
    """Accuracy on steps and on whole problems, and by category: the mean over its concepts."""
    by_concept: dict[str, list[bool]] = defaultdict(list)
    for problem in joined:
        for concept, hit in zip(problem.concepts, problem.steps, strict=True):
            if hit is not None:
                by_concept[concept].append(hit)
    rows = {"One-step(S1)": _mean_row([hit for hits in by_concept.values() for hit in hits])}
    for number, name in zip(NUM_STEPS, ("Two-step(S2)", "Three-step(S3)"), strict=True):
        wholes = [problem.whole for problem in joined if len(problem.steps) == number]
        rows[name] = _mean_row([hit for hit in wholes if hit is not None])
    for category, concepts in category_concepts().items():
        present = [by_concept[concept] for concept in concepts if concept in by_concept]
        means = [sum(hits) / len(hits) for hits in present]
        score = sum(means) / len(means) if means else None
        rows[category] = {"n": sum(map(len, present)), "score": score}
    return rows


def category_concepts() -> dict[str, list[str]]:
    """The twelve categories with their knowledge concepts, from wemath_concepts.txt."""
    concepts: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("wemath_concepts.txt").read_text("utf-8").splitlines():
        if line.startswith("  "):
            concepts[list(concepts)[-1]].append(line.strip())
        else:
            concepts[line] = []
    return concepts


def _tables(results: Sequence[ItemResult]) -> dict[str, Table]:
    """The four cases of the complete problems, strict and loose, and the accuracies on items.

    On all 525 problems the shares are VLMEvalKit's, which divides by 525 on a part of them too.
    """
    joined = [problem for _, problem in problems(results)]
    complete = [problem for problem in joined if problem.is_complete]
    rows: Table = {}
    for name, is_loose in (("Strict", False), ("Loose", True)):
        cases = _cases(complete, is_loose)
        shares = _shares(cases, len(complete)) if complete else {}
        counts = {f"{case} n": count for case, count in cases.items()}
        rows[name] = {"n": len(complete), **shares, **counts}
    return {"problems": rows, "steps, problems and categories": _accuracies(joined)}


def harness_figures(results: Sequence[ItemResult]) -> dict[str, float]:
    """VLMEvalKit's figures as fractions, by its names: `Score (Strict)`, `One-step(S1)`, ...

    Its total is always 525 problems: one that is missing counts as mastered. Without any problem
    there are no figures.
    """
    joined = [problem for _, problem in problems(results)]
    if not joined:
        return {}
    figures: dict[str, Any] = {}
    for name, is_loose in (("Strict", False), ("Loose", True)):
        shares = _shares(_cases(joined, is_loose), NUM_PROBLEMS)
        figures |= {f"{case} ({name})": share for case, share in shares.items()}
    figures |= {name: row["score"] for name, row in _accuracies(joined).items()}
    return {name: value for name, value in figures.items() if value is not None}


def split_options(text: str) -> dict[str, str]:
    """Letter -> option, from a hub row's text like "A. 3;B. 4". Raises ValueError."""
    options = {match[1]: match[2] for match in _OPTION.finditer(text)}
    if not options or "".join(options) != LETTERS[: len(options)]:
        raise ValueError(f"option={text!r}: must be like 'A. ...;B. ...'")
    return options


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The row of VLMEvalKit's TSV file for a row of the hub's data set."""
    unchanged = ("ID", "key", "knowledge concept", "question", "answer")
    options = split_options(str(row["option"]))
    images = {"image": row["image_path"], "index": str(number)}
    return {**{name: row[name] for name in unchanged}, **options, **images}


BENCHMARK = Benchmark(
    name="WeMath",
    prompt=_prompt,
    grade=_grade,
    item_id=_item_id,
    category=lambda item: harness.text(item, "knowledge concept"),
    tables=_tables,
    num_items=1740,
    hub_split="testmini",
    hub_columns=("ID", "key", "knowledge concept", "question", "option", "answer", "image_path"),
    hub_image_columns=("image_path",),
    tsv_columns=(
        *("index", "image", "ID", "key", "knowledge concept", "question", "answer"),
        *("A", "B", "C", "D"),
    ),
    tsv_md5s=("b5e969a075f01290a542411fb7766388",),
    to_harness=_to_harness,
    problem=lambda item: harness.text(item, "ID"),
    reads_tables=True,
    judge_calls=(0, 1, 3),
)
COT_VARIANT = replace(BENCHMARK, prompt=_cot_prompt, grade=_cot_grade)
"""VLMEvalKit's WeMath_COT: its prompt asks for the benchmark's format, and the judge's differs."""
