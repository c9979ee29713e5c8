"""Numbers in plain words: percent points, intervals, and what may be concluded from them."""

from typing import Any

from difftrain.config.train import DROP_REASONS, Dropped
from difftrain.report import about

MINUS = "\u2212"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal; `none` where there is no number."""
    return "none" if fraction is None else f"{100 * fraction:.1f}".replace("-", MINUS)


def interval(mark: dict[str, Any]) -> str:
    """`48.3 [44.0, 52.1]`: a score and its 95 % interval in percent; `none` where there is none."""
    if mark["score"] is None:
        return "none"
    told = f"{percent(mark['score'])} [{percent(mark['low'])}, {percent(mark['high'])}]"
    return f"{told}, {undecided(mark)}" if mark.get("rules_only") else told


def undecided(mark: dict[str, Any]) -> str:
    """`12.0 % undecided`: the share of a score's items that nothing decided; they count 0."""
    return f"{percent(mark['undecided'] / mark['n'])} % undecided"


def points(fraction: float) -> str:
    """A difference in percent points with its sign."""
    return f"{100 * fraction:+.1f}".replace("-", MINUS)


def judged(difference: dict[str, Any]) -> str:
    """better, worse, or `no difference shown` when the interval holds zero."""
    if difference["low"] <= 0 <= difference["high"]:
        return "no difference shown"
    return "better" if difference["mean"] > 0 else "worse"


def change(difference: dict[str, Any]) -> str:
    """`+7.1 points [3.0, 11.2]: better`."""
    low, high = percent(difference["low"]), percent(difference["high"])
    return f"{points(difference['mean'])} points [{low}, {high}]: {judged(difference)}"


def written(number: int) -> str:
    """Small numbers as words."""
    return NUMBERS[number] if number < len(NUMBERS) else f"{number:,}"


def listed(words: list[str]) -> str:
    """`hard`, `medium and hard`, `easy, medium and hard`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def picked(report: dict[str, Any]) -> str:
    """What the tuned arm was trained on: `96 hard samples of 600`."""
    settings, counts = report["settings"]["select"], report["counts"]
    pool = f"{sum(counts['strata'].values()):,}"
    chosen = counts["picks"].get("grpo", 0)
    if measures := settings["rap"]:
        by = listed([str(each).upper() for each in measures])
        return f"{chosen:,} samples of {pool} that {by} chose"
    grpo = set_of(chosen, settings["strata"], settings["random"])
    if "sft" not in counts["picks"]:
        return f"{grpo} of {pool}"
    sft = set_of(counts["picks"]["sft"], settings["sft_strata"], settings["sft_random"])
    return f"{sft} (SFT), then on {grpo} (GRPO), of {pool}"


def set_of(size: int, keep: list[str], random: bool) -> str:
    """`96 hard samples`, or as many randomly chosen ones."""
    kind = "randomly chosen" if random else listed([str(each) for each in keep])
    return f"{size:,} {kind} samples"


def headline(report: dict[str, Any]) -> str:
    """One sentence: did training on the picked samples help?"""
    means, difference = report["means"], report["differences"].get("tuned - base")
    if difference is None:
        return f"Whether training on {picked(report)} helped cannot be said: {no_mean(report)}."
    benchmarks = written(len(report["base"]))
    was, now = percent(means["base"]["score"]), percent(means["tuned"]["score"])
    over = f"the mean over {benchmarks} benchmarks"
    low, high = percent(difference["low"]), percent(difference["high"])
    told = f"{points(difference['mean'])} points, 95 % interval {low} to {high}"
    verdict = judged(difference)
    if verdict == "no difference shown":
        return (
            f"Training on {picked(report)} made no difference that can be shown: "
            f"{over} went from {was} % to {now} % ({told})."
        )
    verb = "raised" if verdict == "better" else "lowered"
    return f"Training on {picked(report)} {verb} {over} from {was} % to {now} % ({told})."


def no_mean(report: dict[str, Any]) -> str:
    """Why base and tuned have no means that could be compared."""
    found = dict.fromkeys(mean["reason"] for mean in report["means"].values() if mean.get("reason"))
    return listed(list(found)) if found else "their means were not compared"


def against_control(report: dict[str, Any]) -> str:
    """Whether the selection, and not training as such, made the difference."""
    difference = report["differences"].get("tuned - control")
    if difference is None and "control" in report["means"]:
        return "Nor can it be compared with the random selection of the same size."
    if difference is None:
        return (
            "No random selection of the same size was trained beside it (control=random does), so "
            "this run cannot say whether the choice of samples mattered."
        )
    low, high = percent(difference["low"]), percent(difference["high"])
    told = f"{points(difference['mean'])} points, 95 % interval {low} to {high}"
    verdict = judged(difference)
    if verdict == "no difference shown":
        return (
            "Against a random selection of the same size there is no difference shown "
            f"({told}): these numbers do not say that the choice of samples mattered."
        )
    beat = "did better" if verdict == "better" else "did worse"
    return f"It {beat} than a random selection of the same size ({told})."


def caveats(report: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the headline."""
    told = [
        f"One training run with one seed ({report['seed']}): the intervals cover the choice of "
        "benchmark items, not the luck of a training run."
    ]
    if any(name.startswith("shapes/") for name in report["base"]):
        told.append(
            "Benchmarks under shapes/ are miniatures of the embedded world in the official item "
            "formats. Their scores are not scores of the official benchmarks."
        )
    if unequal := unequal_arms(report):
        told.append(unequal)
    told += untaught(report)
    told += about.judging(report)
    told += about.contamination(report)
    return told


def untaught(report: dict[str, Any]) -> list[str]:
    """What was chosen for SFT and dropped, and why, for each arm."""
    return [
        f"SFT ({arm}) learns from {sum(reasons.values()):,} samples fewer than were chosen: "
        + "; ".join(f"{n:,} because {DROP_REASONS[Dropped(name)]}" for name, n in reasons.items())
        + "."
        for arm, reasons in report["dropped"].items()
        if reasons
    ]


def unequal_arms(report: dict[str, Any]) -> str | None:
    """A warning if the control was not trained on as many samples for as many steps."""
    trained = report["trained"]
    if "control" not in trained:
        return None
    told = [
        f"{name}: {trained['tuned'][name]:,} against {trained['control'][name]:,}"
        for name in ("samples", "steps")
        if trained["tuned"].get(name) != trained["control"].get(name)
    ]
    return f"The control is not equal in size ({'; '.join(told)})." if told else None
