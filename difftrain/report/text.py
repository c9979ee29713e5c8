"""The report in sentences: numbers as plain text, the headline, and what may be concluded."""

import re
from typing import Any

MINUS = "\u2212"
TEX_SPECIAL = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    MINUS: "$-$",
}
NUMBER_WORDS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
)
NO_DIFFERENCE = "no difference shown"


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal; `none` without a number."""
    return "none" if fraction is None else f"{100 * fraction:.1f}".replace("-", MINUS)


def percent_or_unknown(fraction: float | None) -> str:
    """A fraction in percent with its sign, or `unknown`."""
    return "unknown" if fraction is None else f"{percent(fraction)} %"


def share(part: float, whole: float) -> str:
    """A part in percent of the whole, or `none` if there is no whole."""
    return f"{percent(part / whole)} %" if whole else "none"


def points(fraction: float) -> str:
    """A difference in percent points with its sign; zero is +0.0."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", MINUS)


def number_word(number: int) -> str:
    """Small numbers as words."""
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else f"{number:,}"


def join_words(words: list[str]) -> str:
    """`hard`, `medium and hard`, `easy, medium and hard`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def escape_tex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(TEX_SPECIAL.get(char, char) for char in text)


def join_blank_lines(text: str) -> str:
    """Text with at most one blank line in succession, and a newline at its end."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {full.key: value}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def format_value(value: Any) -> str:
    """A settings value as a reader would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value)) or "none"
    return "none" if value is None else str(value)


def score_with_interval(score: dict[str, Any]) -> str:
    """`48.3 [44.0, 52.1]`: a score and its 95 % interval in percent; `none` without a score."""
    if score["score"] is None:
        return "none"
    text = f"{percent(score['score'])} [{percent(score['low'])}, {percent(score['high'])}]"
    return f"{text}, {undecided_share(score)}" if score.get("rules_only") else text


def undecided_share(score: dict[str, Any]) -> str:
    """`12.0 % undecided`: the share of a score's items that nothing decided; they count 0."""
    return f"{percent(score['undecided'] / score['n'])} % undecided"


def verdict(difference: dict[str, Any]) -> str:
    """better, worse, or `no difference shown` if the interval contains zero."""
    if difference["low"] <= 0 <= difference["high"]:
        return NO_DIFFERENCE
    return "better" if difference["mean"] > 0 else "worse"


def difference_with_verdict(difference: dict[str, Any]) -> str:
    """`+7.1 points [3.0, 11.2]: better`."""
    low, high = percent(difference["low"]), percent(difference["high"])
    return f"{points(difference['mean'])} points [{low}, {high}]: {verdict(difference)}"


def difference_in_words(difference: dict[str, Any]) -> str:
    """`+7.1 points, 95 % interval 3.0 to 11.2`."""
    low, high = percent(difference["low"]), percent(difference["high"])
    return f"{points(difference['mean'])} points, 95 % interval {low} to {high}"


def training_samples(report: dict[str, Any]) -> str:
    """What the tuned arm was trained on: `96 hard samples of 600`."""
    select, counts = report["settings"]["select"], report["counts"]
    total, size = f"{sum(counts['strata'].values()):,}", counts["picks"].get("grpo", 0)
    if measures := select["rap"]:
        names = join_words([str(measure).upper() for measure in measures])
        return f"{size:,} samples of {total} selected by {names}"
    grpo = sample_set(size, select["strata"], select["random"])
    if "sft" not in counts["picks"]:
        return f"{grpo} of {total}"
    sft = sample_set(counts["picks"]["sft"], select["sft_strata"], select["sft_random"])
    return f"{sft} (SFT), then on {grpo} (GRPO), of {total}"


def sample_set(size: int, strata: list[str], random: bool) -> str:
    """`96 hard samples`, or as many randomly selected ones."""
    kind = "randomly selected" if random else join_words([str(stratum) for stratum in strata])
    return f"{size:,} {kind} samples"


def headline(report: dict[str, Any]) -> str:
    """One sentence: did training on the selected samples help?"""
    means, difference = report["means"], report["differences"].get("tuned - base")
    samples = training_samples(report)
    if difference is None:
        return f"It is unknown whether training on {samples} helped: {missing_mean_reason(report)}."
    benchmarks = number_word(len(report["base"]))
    before, after = percent(means["base"]["score"]), percent(means["tuned"]["score"])
    mean, details = f"the mean over {benchmarks} benchmarks", difference_in_words(difference)
    result = verdict(difference)
    if result == NO_DIFFERENCE:
        return (
            f"No difference is shown after training on {samples}: {mean} went from {before} % to "
            f"{after} % ({details})."
        )
    verb = "raised" if result == "better" else "lowered"
    return f"Training on {samples} {verb} {mean} from {before} % to {after} % ({details})."


def missing_mean_reason(report: dict[str, Any]) -> str:
    """Why base and tuned have no means that could be compared."""
    reasons = dict.fromkeys(
        mean["reason"] for mean in report["means"].values() if mean.get("reason")
    )
    return join_words(list(reasons)) if reasons else "their means were not compared"


def control_sentence(report: dict[str, Any]) -> str:
    """Whether the selection, and not training as such, made the difference."""
    difference = report["differences"].get("tuned - control")
    if difference is None and "control" in report["means"]:
        return "A comparison with the random selection of the same size is not possible either."
    if difference is None:
        return (
            "No random selection of the same size was trained for comparison (control=random does "
            "that), so this run cannot say whether the selection of samples mattered."
        )
    result, details = verdict(difference), difference_in_words(difference)
    if result == NO_DIFFERENCE:
        return (
            "Compared with a random selection of the same size no difference is shown "
            f"({details}): this run does not show that the selection of samples mattered."
        )
    return f"It is {result} than a random selection of the same size ({details})."
