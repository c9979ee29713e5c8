"""Two checkpoints on the very same items: who won which, and how sure the difference is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from difftrain.evaluate import summary, undecided
from difftrain.evaluate.summary import Difference
from difftrain.records import ItemResult

MUST_AGREE = (
    *("rules", "answer_tags", "system", "deviations", "judge", "judge_server"),
    *("max_new_tokens", "min_pixels", "max_pixels", "limit", "any_count", "engine", "dtype"),
)
"""Settings under which two checkpoints must have been marked to be compared."""
ITEMS = "items of "
"""So the inputs in manifest.json are named that hold the hash of a benchmark's items."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One benchmark: both means over the pairs, the items won and lost by the second, and all."""

    benchmark: str
    before: float
    after: float
    difference: Difference
    won: int
    lost: int
    tied: int


@dataclass(frozen=True, slots=True)
class Changed:
    """One item on which the two scores differ."""

    benchmark: str
    item_id: str
    before: float
    after: float
    response_before: str
    response_after: str


def disagreements(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """Settings in manifest.json that make two evaluations incomparable, as `key: a and b`."""
    return [
        f"{key}: {one.get(key)} and {two.get(key)}"
        for key in MUST_AGREE
        if one.get(key) != two.get(key)
    ]


def other_items(one: Mapping[str, str], two: Mapping[str, str]) -> list[str]:
    """Benchmarks whose items, words or pictures differ, from the inputs in manifest.json."""
    hashed = sorted(key for key in {*one, *two} if key.startswith(ITEMS))
    return [key.removeprefix(ITEMS) for key in hashed if one.get(key) != two.get(key)]


def pairs(
    marks_a: Sequence[ItemResult], marks_b: Sequence[ItemResult]
) -> list[tuple[ItemResult, ItemResult]]:
    """The two marks of every item that has a score on both sides, in the order of the first."""
    other = {(mark.benchmark, mark.item_id): mark for mark in marks_b}
    return [
        (mark, two)
        for mark in marks_a
        if mark.score is not None and (two := other[mark.benchmark, mark.item_id]).score is not None
    ]


def compare(
    marks_a: Sequence[ItemResult], marks_b: Sequence[ItemResult], resamples: int = 2000
) -> list[Compared]:
    """b against a on each benchmark.

    Raises ValueError if they do not hold the same items, or nothing was decided on one side.
    """
    summary.paired_difference(marks_a, marks_b, resamples=1)  # refuses unequal sets of items
    found = []
    for name in dict.fromkeys(mark.benchmark for mark in marks_a):
        own_a = [mark for mark in marks_a if mark.benchmark == name]
        own_b = [mark for mark in marks_b if mark.benchmark == name]
        for side, own in (("first", own_a), ("second", own_b)):
            if why := undecided.why_none(name, own):
                raise ValueError(f"{name} of the {side} has no score to compare: {why}")
        both = [(a.score or 0.0, b.score or 0.0) for a, b in pairs(own_a, own_b)]
        found.append(
            Compared(
                benchmark=name,
                before=sum(a for a, _ in both) / len(both),
                after=sum(b for _, b in both) / len(both),
                difference=summary.paired_difference(own_a, own_b, resamples=resamples),
                won=sum(b > a for a, b in both),
                lost=sum(b < a for a, b in both),
                tied=sum(b == a for a, b in both),
            )
        )
    return found


def changed(marks_a: Sequence[ItemResult], marks_b: Sequence[ItemResult]) -> list[Changed]:
    """The items on which the two differ, won and lost."""
    return [
        Changed(a.benchmark, a.item_id, a.score or 0.0, b.score or 0.0, a.response, b.response)
        for a, b in pairs(marks_a, marks_b)
        if a.score != b.score
    ]


def page(names: Sequence[str], rows: Sequence[Compared], settings: Mapping[str, Any]) -> str:
    """The comparison as text: percent, and percent points with their 95 % intervals."""
    head = ["benchmark", *names, "difference", "95 % interval", "won", "lost", "tied", "left out"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for each in rows:
        gap = each.difference
        lines.append(
            [
                each.benchmark,
                *(f"{100 * score:.2f}" for score in (each.before, each.after)),
                f"{100 * gap.mean:+.2f}",
                f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}",
                *map(str, (each.won, each.lost, each.tied, gap.failed)),
            ]
        )
    told = [f"* {key}: {settings[key]}" for key in MUST_AGREE if settings.get(key) is not None]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"# {names[1]} against {names[0]}\n\n{body}\n\nBoth under:\n\n" + "\n".join(told) + "\n"


def plain(rows: Sequence[Compared]) -> list[dict[str, Any]]:
    """The comparison as JSON can hold it."""
    return [asdict(row) for row in rows]
