"""MathVista (testmini): 1000 items; a judge extracts the answer where the rule cannot."""

import json

from difftrain.data.prompts import LETTERS
from difftrain.evaluate import items
from difftrain.evaluate.graded import UNDECIDED, Benchmark, Graded, Item, Judge, Part
from difftrain.evaluate.judge_prompts import RISING, first_usable
from difftrain.evaluate.rules import API_FAILURE, Switches, infer
from difftrain.records import GradedBy

_ONE = "Please answer the question requiring"
_END = "at the end."
_EXAMPLES = (
    (
        f"{_ONE} an integer answer and provide the final value,\ne.g., 1, 2, 3, {_END}",
        "Which number is missing?",
        "The number missing in the sequence is 14.",
        "14",
    ),
    (
        f"{_ONE} a floating-point number with one decimal place and provide the final value,\n"
        f"e.g., 1.2, 1.3, 1.4, {_END}",
        "What is the fraction of females facing the camera?",
        "The fraction of females facing the camera is 0.6,\n"
        "which means that six out of ten females in the group are facing the camera.",
        "0.6",
    ),
    (
        f"{_ONE} a floating-point number with two decimal places and provide the final value,\n"
        f"e.g., 1.23, 1.34, 1.45, {_END}",
        "How much money does Luca need to buy a sour apple candy and a butter-scotch candy? "
        "(Unit: $)",
        "Luca needs $1.45 to buy a sour apple candy and a butterscotch candy.",
        "1.45",
    ),
    (
        f"{_ONE} a Python list as an answer and provide the final list,\n"
        f"e.g., [1, 2, 3], [1.2, 1.3, 1.4], {_END}",
        "Between which two years does the line graph saw its maximum peak?",
        "The line graph saw its maximum peak between 2007 and 2008.",
        "[2007, 2008]",
    ),
    (
        "Please answer the question and provide the correct option letter, e.g., A, B, C, D, "
        f"{_END}",
        "What fraction of the shape is blue?\nChoices: (A) 3/11 (B) 8/11 (C) 6/11 (D) 3/5",
        "The correct answer is (B) 8/11.",
        "B",
    ),
)
"""(hint, question, response, answer): the benchmark's own demonstration (lupantech/MathVista)."""

LONGEST_LIST = 200
"""Characters of a list answer."""
JUDGE_PROMPT = (
    "Please read the following example.\nThen extract the answer from the model response and "
    "type it at the end of the prompt.\n\n"
    + "\n".join(
        f"Hint: {hint}\n\nQuestion: {question}\n\nModel response: {response}\n\n"
        f"Extracted answer: {answer}\n"
        for hint, question, response, answer in _EXAMPLES
    )
)


def query(item: Item) -> str:
    """Hint, question and choices: the data set's `query`, which the TSV calls `question`."""
    return items.text(item, "query", "question")


def prompt(item: Item) -> list[Part]:
    """The picture, then the query as it stands."""
    return items.images_then(item, query(item))


def judge_prompt(prediction: str, item: Item) -> str:
    """The extractor's prompt (the missing letter and the missing line break are the original's)."""
    asked = str(item.get("query") or item.get("question") or "")
    return f"{JUDGE_PROMPT}\n{asked}\nModel respone: {prediction}Extracted answer:"


def _options(item: Item) -> dict[str, str]:
    texts = [str(each) for each in items.listed(items.first(item, "choices"))]
    return dict(zip(LETTERS, texts, strict=False))


def _gold_letter(item: Item, options: dict[str, str]) -> str:
    if not items.is_empty(item.get("answer_option")):
        return str(item["answer_option"])
    gold = items.text(item, "answer")
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


def _as_list(text: object) -> list[object] | None:
    """A list of numbers as JSON, which is also how Python writes it; None if the text is none."""
    words = str(text).strip()
    # Nothing of a list of a few numbers needs more; a longer text is no answer of that kind.
    if not words.startswith("[") or len(words) > LONGEST_LIST:
        return None
    try:
        found = json.loads(words)
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def _prefetched(prediction: str, item: Item, how: Switches) -> Graded | None:
    """What the rule alone decides; a wrong number, and a right 0, are left to the judge."""
    if item["question_type"] == "multi_choice":
        options = _options(item)
        letter = infer(prediction, options, how)
        if letter is None:
            return None
        return Graded(float(letter == _gold_letter(item, options)), letter, GradedBy.rule)
    if item["answer_type"] not in ("integer", "float"):
        return None
    number = _number(prediction, item["answer_type"])
    # The reference tests the number for truth, so a right 0 is "nothing found".
    found = number is not None if how.deviations.zero else bool(number)
    if found and number == _number(item["answer"], item["answer_type"]):
        return Graded(1.0, str(number), GradedBy.rule)
    return None


def _is_right(extracted: str, item: Item, how: Switches) -> bool:
    if item["question_type"] == "multi_choice":
        options = _options(item)
        return infer(extracted, options, how) == _gold_letter(item, options)
    kind = item["answer_type"]
    if kind not in ("integer", "float"):
        # The reference has no rule for lists: its branch never says right.
        said = _as_list(extracted) if how.deviations.list_items else None
        return said is not None and said == _as_list(item["answer"])
    number = _number(extracted, kind)
    return number is not None and number == _number(item["answer"], kind)


def grade(prediction: str, item: Item, judge: Judge | None, rules: Switches) -> Graded:
    """The rule's answer; else what the judge extracts, held against the gold by the same rule.

    Five failed calls give 0 with path `failed`, as in the reference.
    """
    if known := _prefetched(prediction, item, rules):
        return known
    if judge is None:
        return UNDECIDED

    def answered(reply: str) -> str | None:
        return None if API_FAILURE in reply else reply

    extracted, _ = first_usable(judge, judge_prompt(prediction, item), RISING, answered)
    if extracted is None:
        return UNDECIDED
    return Graded(float(_is_right(extracted, item, rules)), extracted, GradedBy.judge)


def item_id(item: Item) -> str:
    """The `pid` column, else `index`."""
    return items.text(item, "pid", "index")


def subset(item: Item) -> str:
    """The task and the skills, joined by commas: columns (TSV), or inside `metadata` (data set)."""
    metadata = item.get("metadata") or {}
    task = str(item.get("task") or metadata.get("task") or item["question_type"])
    skills = items.listed(item.get("skills") or metadata.get("skills"))
    return ",".join([task, *map(str, skills)])


BENCHMARK = Benchmark(
    name="MathVista",
    prompt=prompt,
    grade=grade,
    item_id=item_id,
    subset=subset,
    cluster=item_id,
    judge="sometimes",
)
