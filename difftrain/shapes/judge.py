"""A stand-in for MM-Vet's judge that works offline and always says the same.

It is no language model: it exercises the judge's path on the miniatures, and its scores compare
only with each other. It reads the judge prompt's last row and looks for the gold's parts in the
prediction. A row says `question | gold | prediction | ` and the prediction must be on one line.
"""

import re

from difftrain.grade import extract

NONE_OF_THEM = "Z"
"""What it replies to any other prompt: none of the options, which the other benchmarks read as
wrong."""

_PARTS = re.compile(r"\s*<(?:AND|OR)>\s*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _numbers(text: str) -> set[float]:
    return {float(found) for found in _NUMBER.findall(text)}


def _present(part: str, prediction: str) -> bool:
    """A number must be said as such, any other text may stand inside a longer one."""
    wanted = _normal(part)
    if _NUMBER.fullmatch(wanted):
        return float(wanted) in _numbers(prediction)
    return bool(wanted) and wanted in prediction


def score(gold: str, prediction: str) -> float:
    """1.0, 0.5 or 0.0: any <OR> part, or all, some or none of the <AND> parts, is present.

    A prediction that lists more different numbers than the gold is guessing: 0.0. Answer tags
    are opened.
    """
    parts = _PARTS.split(gold.strip())
    opened = extract.tag_content(prediction)
    said = _normal(prediction if opened is None else opened)
    asked = sum(_NUMBER.fullmatch(part) is not None for part in parts)
    if asked and len(_numbers(said)) > asked:
        return 0.0
    found = sum(_present(part, said) for part in parts)
    if "<OR>" in gold:
        return 1.0 if found else 0.0
    return 1.0 if found == len(parts) else 0.5 if found else 0.0


def judge(prompt: str, temperature: float) -> str:
    """The score of the prompt's last row as text; the temperature changes nothing."""
    row = prompt.rpartition("\n")[2]
    cells = row.split(" | ")
    if len(cells) < 4 or cells[-1].strip():
        return NONE_OF_THEM
    return str(score(cells[1], " | ".join(cells[2:-1])))
