"""HallusionBench: 951 yes/no questions; figures come in original and edited pairs."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from difftrain.evaluate import items
from difftrain.evaluate.graded import UNDECIDED, Benchmark, Graded, Item, Judge, Part
from difftrain.evaluate.judge_prompts import RISING, first_usable
from difftrain.evaluate.rules import Switches
from difftrain.records import GradedBy

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
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32
"""The reference passes a flag (re.UNICODE is 32) where the number of replacements belongs."""


def prompt(item: Item) -> list[Part]:
    """The picture, then the bare question."""
    return items.images_then(item, items.text(item, "question"))


def yes_or_no(text: str, every_period: bool = False) -> str | None:
    """Yes or No if the one word occurs and the other does not, after VQA-style clearing."""
    lowered = text.lower()
    glued = _DIGIT_COMMA_DIGIT.search(lowered) is not None
    cleared = lowered
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in lowered or f" {mark}" in lowered
        cleared = cleared.replace(mark, "" if beside_blank or glued else " ")
    words = _PERIOD.sub("", cleared, count=0 if every_period else _PERIODS_REMOVED).split()
    if ("yes" in words) == ("no" in words):
        return None
    return "Yes" if "yes" in words else "No"


def gold(item: Item) -> str:
    """Yes or No; the official file writes 1 and 0."""
    answer = items.text(item, "answer", "gt_answer").strip()
    return {"1": "Yes", "0": "No"}.get(answer, answer)


def judge_prompt(prediction: str, item: Item) -> str:
    """The prompt that asks whether a prediction means yes or no; the gold is not shown."""
    question = items.text(item, "question")
    return f"{JUDGE_PROMPT}Question: {question}?\nAnswer: {prediction}\nYour output: "


def grade(prediction: str, item: Item, judge: Judge | None, rules: Switches) -> Graded:
    """By the yes/no rule, else by the judge's reply under the same rule; unknown is wrong."""

    def read(text: str) -> str | None:
        return yes_or_no(text, rules.deviations.all_periods)

    said, path = read(prediction), GradedBy.rule
    if said is None and judge is not None:
        said, _ = first_usable(judge, judge_prompt(prediction, item), RISING, read)
        path = GradedBy.judge
    if said is None:
        return UNDECIDED
    return Graded(float(said == gold(item)), said, path)


def _identity(item: Item) -> tuple[str, str, str, str]:
    if "set_id" in item:
        places = [items.text(item, column) for column in ("set_id", "figure_id", "question_id")]
    else:
        places = items.text(item, "index").split("_")[3:6]
    if len(places) < 3:
        told = "set, figure and question are its parts 4 to 6"
        raise ValueError(f"the index {items.text(item, 'index')} is too short: {told}")
    return subset(item), places[0], places[1], places[2]


def item_id(item: Item) -> str:
    """subset/set/figure/question; the subset is needed, ids repeat across subsets."""
    return "/".join(_identity(item))


def subset(item: Item) -> str:
    """The harness's l2-category: VD_illusion, VS_chart, ..."""
    for column in ("l2-category", "l2_category"):
        if not items.is_empty(item.get(column)):
            return str(item[column])
    return f"{items.text(item, 'category')}_{items.text(item, 'subcategory')}"


def figure_of(identity: str) -> str:
    """The figure part of an item id: subset/set/figure."""
    return identity.rpartition("/")[0]


def cluster(item: Item) -> str:
    """The figure: its questions share one picture, so they are drawn together."""
    return figure_of(item_id(item))


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Fractions of 1: of questions, of figures all right, of questions right on every figure.

    The names are the benchmark's own; None where there is nothing to take a share of. A figure, or
    a question, one of whose items has no score is in neither share, and counted.
    """

    aAcc: float | None
    fAcc: float | None
    qAcc: float | None
    figures_left_out: int = 0
    questions_left_out: int = 0

    @property
    def average(self) -> float | None:
        """What leaderboards call the overall score."""
        if self.aAcc is None or self.fAcc is None or self.qAcc is None:
            return None
        return (self.aAcc + self.fAcc + self.qAcc) / 3


def accuracies(score_by_item_id: Mapping[str, float | None]) -> Accuracies:
    """The three accuracies from the scores of all items by item id, None where there is none."""
    figures: dict[str, list[float | None]] = defaultdict(list)
    questions: dict[tuple[str, ...], list[float | None]] = defaultdict(list)
    for identity, score in score_by_item_id.items():
        subset_, set_id, _, question_id = identity.rsplit("/", 3)
        figures[figure_of(identity)].append(score)
        questions[subset_, set_id, question_id].append(score)
    every_figure = [each for each in figures.values() if None not in each]
    every_question = [each for each in questions.values() if None not in each]
    return Accuracies(
        aAcc=_mean([score for score in score_by_item_id.values() if score is not None]),
        fAcc=_mean([all(score == 1 for score in each) for each in every_figure]),
        qAcc=_mean([all(score == 1 for score in each) for each in every_question]),
        figures_left_out=len(figures) - len(every_figure),
        questions_left_out=len(questions) - len(every_question),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


BENCHMARK = Benchmark(
    name="HallusionBench",
    prompt=prompt,
    grade=grade,
    item_id=item_id,
    subset=subset,
    cluster=cluster,
    judge="sometimes",
)
