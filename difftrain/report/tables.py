"""The report's tables: made once, shown in markdown and in HTML alike."""

from dataclasses import dataclass
from typing import Any

from difftrain.records import Verdict
from difftrain.report.text import (
    difference_with_verdict,
    duration,
    format_value,
    join_words,
    percent,
    percent_or_unknown,
    score_with_interval,
    share,
)

ARM_NAMES = {
    "base": "base",
    "tuned": "tuned",
    "control": "control (random, equal size)",
}
STAGE_NAMES = {
    "data": "data",
    "probe": "probe: responses",
    "attention": "probe: attention",
    "score": "score",
    "retest": "retest with other seeds",
    "select_sft": "select for SFT",
    "sft": "train: SFT",
    "select": "select",
    "train": "train",
    "evaluate": "evaluate",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A head and rows of the same length, all text."""

    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in markdown; the first column is aligned left, the others right."""
        lines = [self.head, ["---", *["--:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(map(escape_cell, line)) + " |" for line in lines)


def escape_cell(text: str) -> str:
    """A cell without what would break a markdown table or be taken for HTML."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def arms(report: dict[str, Any]) -> list[str]:
    """base, tuned and, if it was trained, control."""
    return [arm for arm in ARM_NAMES if arm in report["means"]]


def results_table(report: dict[str, Any]) -> Table:
    """Scores with 95 % intervals in percent: a row per arm, a column per benchmark."""
    benchmarks = list(report["base"])
    rows = []
    for arm in arms(report):
        scores = [*(report[arm][name] for name in benchmarks), report["means"][arm]]
        rows.append([ARM_NAMES[arm], *map(score_with_interval, scores)])
    return Table(["percent", *benchmarks, "mean"], rows)


def differences_table(report: dict[str, Any]) -> Table:
    """Differences of the means with their verdicts, paired over benchmark items."""
    rows = [
        [name.replace(" - ", " against "), difference_with_verdict(row), f"{row['n']:,}"]
        for name, row in report["differences"].items()
    ]
    return Table(["mean over benchmarks", "difference", "items"], rows)


def strata_table(report: dict[str, Any]) -> Table:
    """Where every row went: strata or quarantine, and what each arm was trained on."""
    counts = report["counts"]
    selected, total = counts["picks_strata"], counts["samples"]
    rows = [
        [
            stratum,
            f"{n:,}",
            share(n, total),
            *(f"{by_stratum.get(stratum, 0):,}" for by_stratum in selected.values()),
        ]
        for stratum, n in counts["strata"].items()
    ]
    quarantined = counts["quarantined"]
    rows.append(
        ["quarantined", f"{quarantined:,}", share(quarantined, total), *["0"] * len(selected)]
    )
    sums = [f"{sum(by_stratum.values()):,}" for by_stratum in selected.values()]
    rows.append(["all rows", f"{total:,}", "100.0 %", *sums])
    return Table(["stratum", "samples", "share", *(f"trained: {arm}" for arm in selected)], rows)


def cost_table(report: dict[str, Any]) -> Table:
    """Generations, tokens and time of every stage."""
    rows = []
    for stage, cost in report["cost"]["by_stage"].items():
        kind, _, arm = stage.partition(" ")
        name = f"{STAGE_NAMES[kind]}, {arm}" if arm else STAGE_NAMES[kind]
        numbers = [f"{cost[key]:,}" if key in cost else "" for key in ("generations", "tokens")]
        rows.append([name, *numbers, duration(cost["seconds"])])
    return Table(["stage", "generations", "tokens", "time"], rows)


def grid_sentence(report: dict[str, Any]) -> str | None:
    """How much of the full ratio-by-draw grid was generated; None without masked images."""
    cost = report["cost"]
    if "full_grid" not in cost:
        return None
    probe = report["settings"]["probe"]
    return (
        f"{percent(cost['share_of_grid'])} % of the full grid was generated "
        f"({len(probe['mask_percents'])} mask ratios x {probe['draws']} draws x "
        f"{sum(report['counts']['strata'].values()):,} samples = "
        f"{cost['full_grid']:,} generations)."
    )


def evaluation_table(report: dict[str, Any]) -> Table:
    """The settings a score depends on; where they differ, with the arm in brackets."""
    evaluation = report["evaluation"]
    rows = []
    for name in dict.fromkeys(name for settings in evaluation.values() for name in settings):
        values = {arm: format_value(settings.get(name)) for arm, settings in evaluation.items()}
        distinct = list(dict.fromkeys(values.values()))
        per_arm = [f"{value} ({arm})" for arm, value in values.items()]
        rows.append(
            [name.replace("_", " "), distinct[0] if len(distinct) == 1 else join_words(per_arm)]
        )
    return Table(["evaluation setting", "value"], rows)


def quarantine_table(report: dict[str, Any]) -> Table:
    """Rows that could not become samples, by reason."""
    reasons = report["counts"]["quarantine_reasons"].items()
    return Table(
        ["reason", "rows"],
        [[reason, f"{n:,}"] for reason, n in sorted(reasons, key=lambda item: -item[1])],
    )


def unparsable_sentence(report: dict[str, Any]) -> str:
    """How many probe responses the grader could not parse, which does not mean incorrect."""
    verdicts, truncated = report["counts"]["verdicts"], report["counts"]["truncated"]
    total, unparsable = sum(verdicts.values()), verdicts.get(Verdict.unparsable, 0)
    return (
        f"Of {total:,} responses in the probe, {unparsable:,} ({share(unparsable, total)}) "
        f"contained no answer that could be parsed and {truncated:,} ({share(truncated, total)}) "
        "were cut off at the token limit."
    )


def gen_difficulty_table(report: dict[str, Any]) -> Table:
    """The difficulty samples were generated with, by stratum: does the measure recover it?"""
    strata = report["gen_difficulty"]
    rows = [
        [
            stratum,
            f"{strata[stratum]['n']:,}",
            f"{strata[stratum]['gen_difficulty']:.2f}",
            percent_or_unknown(strata[stratum]["requires_image"]),
        ]
        for stratum in report["counts"]["strata"]
        if stratum in strata
    ]
    return Table(["stratum", "samples", "mean difficulty (0 to 1)", "require the image"], rows)
