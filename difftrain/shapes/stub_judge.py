"""A stub of MM-Vet's judge that works offline and is deterministic.

It is no language model: it lets the judge code run on the miniatures, and its scores compare only
with each other. It reads the last row of the judge prompt, `question | gold | prediction | `, with
the prediction on one line, and looks for the parts of the gold answer in the prediction.
"""

import re

from difftrain.grade import extract

NO_OPTION = "Z"
"""The reply to any other prompt: none of the options, which the other benchmarks score as wrong."""
_PARTS = re.compile(r"\s*<(?:AND|OR)>\s*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())


def _numbers(text: str) -> set[float]:
    return {float(number) for number in _NUMBER.findall(text)}


def _contains(prediction: str, part: str) -> bool:
    """Whether the prediction has the part: as a number of its own, or as text anywhere."""
    part = _normalize(part)
    if _NUMBER.fullmatch(part):
        return float(part) in _numbers(prediction)
    return bool(part) and part in prediction


def score(gold: str, prediction: str) -> float:
    """1.0, 0.5 or 0.0: any <OR> part, or all, some or none of the <AND> parts, is present.

    Of a prediction with answer tags only their content counts. A prediction with more different
    numbers than the gold answer is guessing: 0.0.
    """
    parts = _PARTS.split(gold.strip())
    tagged = extract.tag_content(prediction)
    text = _normalize(prediction if tagged is None else tagged)
    gold_numbers = sum(_NUMBER.fullmatch(part) is not None for part in parts)
    if gold_numbers and len(_numbers(text)) > gold_numbers:
        return 0.0
    present = sum(_contains(text, part) for part in parts)
    if "<OR>" in gold:
        return 1.0 if present else 0.0
    return 1.0 if present == len(parts) else 0.5 if present else 0.0


def judge(prompt: str, temperature: float) -> str:
    """The score of the prompt's last row as text; the temperature has no effect."""
    cells = prompt.rpartition("\n")[2].split(" | ")
    if len(cells) < 4 or cells[-1].strip():
        return NO_OPTION
    return str(score(cells[1], " | ".join(cells[2:-1])))
