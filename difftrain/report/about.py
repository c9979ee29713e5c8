"""What a reader must know about judges and about benchmark items among the training data."""

from typing import Any

SHOWN = 5
"""Samples that are named in a sentence; report.json has all."""


def of_each(numbers: dict[str, int]) -> str:
    """`3 of base, 1 of tuned`, without the zeros."""
    return ", ".join(f"{number:,} of {who}" for who, number in numbers.items() if number)


def counted(report: dict[str, Any], name: str) -> dict[str, int]:
    """A count of every checkpoint's benchmarks, summed up by checkpoint."""
    return {who: sum(mark.get(name, 0) for mark in report[who].values()) for who in report["means"]}


def judging(report: dict[str, Any]) -> list[str]:
    """Items without a grade, items that nothing decided, benchmarks without a score."""
    told = []
    undecided, failed = counted(report, "undecided"), counted(report, "failed")
    skipped, no_response = counted(report, "skipped"), counted(report, "no_response")
    others = (undecided, skipped, no_response)
    unscored = of_each({who: failed[who] - sum(each[who] for each in others) for who in failed})
    if of_each(no_response):
        told.append(
            f"Some benchmark items got no response from the engine: {of_each(no_response)}. They "
            "are in no mean; the same command requests them again."
        )
    if of_each(skipped):
        told.append(
            f"Some benchmark items are skipped, because of their image: {of_each(skipped)}. "
            "They are in no mean, and are not requested again."
        )
    if unscored:
        told.append(
            f"Some benchmark items got no grade, because the judge failed: {unscored}. "
            "The same command asks it again, and asks no model."
        )
    if any(mark.get("rules_only") for who in report["means"] for mark in report[who].values()):
        told.append(
            "Scores are by rules alone (evaluate.judge=none): what no rule decides counts as wrong "
            f"({of_each(undecided) or 'no item'}). Compare them with no judged score."
        )
    elif of_each(undecided):
        told.append(
            "Some benchmark items count as wrong, because neither a rule nor a usable reply of "
            f"the judge decided them: {of_each(undecided)}."
        )
    without: dict[str, list[str]] = {}
    for who in report["means"]:
        for name, mark in report[who].items():
            if mark.get("reason"):
                without.setdefault(f"{name} has no score: {mark['reason']}", []).append(who)
    return told + [f"{words} ({', '.join(who)})." for words, who in without.items()]


def contamination(report: dict[str, Any]) -> list[str]:
    """What was checked for benchmark pictures among the training samples, and what was found."""
    found = report.get("contamination")
    if found is None:
        return ["Training samples were not compared with any benchmark: nothing was checked."]
    told = []
    if absent := found["absent"]:
        told.append(
            f"Of the official benchmarks {', '.join(absent)} no items are at hand here, so "
            "training samples were not compared with them: nothing was checked."
        )
    told += [f"not checked: {name}: {why}." for name, why in found.get("not_checked", {}).items()]
    over = (
        f"{found['samples']:,} samples were compared with {sum(found['checked'].values()):,} items"
    )
    hits = found["hits"]
    if not hits:
        return [*told, f"{over} of {', '.join(found['checked'])}; none is in both."]
    named = "; ".join(
        f"{each['sample_id']} ({each['kind']}: {each['item']})" for each in hits[:SHOWN]
    )
    rest = f" and {len(hits) - SHOWN:,} more in report.json" if len(hits) > SHOWN else ""
    trained = sum(each["trained"] for each in hits)
    return [
        *told,
        f"{over}: {len(hits):,} are in both, {trained:,} of which were trained on: {named}{rest}.",
    ]
