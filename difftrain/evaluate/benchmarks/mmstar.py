"""MMStar: 1500 multiple-choice questions on six capabilities.

In the hub's data set a question contains its options; VLMEvalKit's TSV has columns A to D.
"""

import re
from typing import Any

from difftrain.evaluate import harness
from difftrain.evaluate.benchmarks import multiple_choice
from difftrain.evaluate.harness import Benchmark, HarnessRules, Item, ItemGrade, Judge, Part

_OPTIONS_LINE = re.compile(
    r"\n\s*Options:\s*A:\s*(?P<A>.*?)(?:,\s*B:\s*(?P<B>.*?)"
    r"(?:,\s*C:\s*(?P<C>.*?)(?:,\s*D:\s*(?P<D>.*?))?)?)?\s*\Z",
    re.DOTALL,
)
_CHOICE_LINE = re.compile(r"^\(([A-D])\)\s?(.*?)\s*(?=^\([A-D]\)|\Z)", re.DOTALL | re.MULTILINE)


def _required_options(item: Item) -> dict[str, str]:
    options = harness.options(item)
    if not options:
        raise ValueError(f"MMStar item {item.get('index')} has no option columns A, B, C, D")
    return options


def _prompt(item: Item) -> list[Part]:
    """The image, then the question with its options. A tag `<image 1>` in the text stays there."""
    _required_options(item)  # raises ValueError if there are none
    return harness.images_then_text(item, multiple_choice.question_text(item))


def _grade(prediction: str, item: Item, judge: Judge | None, rules: HarnessRules) -> ItemGrade:
    options, gold = _required_options(item), harness.text(item, "answer")
    return multiple_choice.grade(prediction, item, options, gold, judge, rules)


def split_options(question: str) -> tuple[str, dict[str, str]]:
    """Split the text of a hub row into the question and its options (letter -> option).

    The text ends in "\\nOptions: A: x, B: y". In rows that come from MathVista it ends in
    "\\nChoices:\\n(A) x\\n(B) y". Raises ValueError if it has no options.
    """
    if match := _OPTIONS_LINE.search(question):
        options = {letter: text for letter, text in match.groupdict().items() if text is not None}
        return question[: match.start()], options
    options = {match[1]: match[2] for match in _CHOICE_LINE.finditer(question)}
    if not options:
        raise ValueError("the question holds no options")
    start = next(_CHOICE_LINE.finditer(question)).start()
    return question[:start].rstrip().removesuffix("Choices:").rstrip(), options


def _to_harness(row: dict[str, Any], number: int) -> dict[str, Any]:
    try:
        question, options = split_options(row["question"])
    except ValueError as error:
        raise ValueError(f"row {row['index']}: {error}") from error
    unchanged = {name: row[name] for name in ("answer", "category", "l2_category", "image")}
    return {"index": str(row["index"]), "question": question, **options, **unchanged}


BENCHMARK = Benchmark(
    name="MMStar",
    prompt=_prompt,
    grade=_grade,
    item_id=lambda item: harness.text(item, "index"),
    category=lambda item: harness.text(item, "category"),
    tables=lambda results: {"capabilities": harness.category_table(results)},
    num_items=1500,
    hub_split="val",
    hub_columns=("index", "question", "image", "answer", "category", "l2_category"),
    tsv_columns=("index", "image", "question", "answer", "A", "B", "C", "D", "category"),
    tsv_md5s=("e1ecd2140806c1b1bbf54b43372efb9e", "2f3da1ab455b65ac89e57b01706207b7"),
    to_harness=_to_harness,
    judge_calls=(0, 1, 3),
)
