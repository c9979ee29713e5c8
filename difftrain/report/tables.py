"""The report's tables: made once, shown in markdown and on the page alike."""

from dataclasses import dataclass
from typing import Any

from difftrain.records import Verdict
from difftrain.report.words import change, duration, interval, listed, percent

ARMS = {
    "base": "base",
    "tuned": "tuned",
    "control": "control (random, equal size)",
}
COST_NAMES = {
    "data": "data",
    "probe": "probe: ask the model",
    "attention": "probe: attention",
    "score": "score",
    "reliability": "asked again with other seeds",
    "select_sft": "select for SFT",
    "sft": "train: SFT",
    "select": "select",
    "train": "train",
    "marks": "evaluate",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A head and rows of the same length, all text."""

    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in markdown; the first column is aligned left, the others right."""
        lines = [self.head, ["---", *["--:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join(
            "| " + " | ".join(cell_text(cell) for cell in line) + " |" for line in lines
        )


def cell_text(text: str) -> str:
    """A cell without what would break a markdown table or be taken for HTML."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def arms(report: dict[str, Any]) -> list[str]:
    """base, tuned and, if it was trained, control."""
    return [arm for arm in ARMS if arm in report["means"]]


def results(report: dict[str, Any]) -> Table:
    """Scores with 95 % intervals, in percent: one row a checkpoint, a column a benchmark."""
    benchmarks = list(report["base"])
    return Table(
        ["percent", *benchmarks, "mean"],
        [
            [ARMS[arm]]
            + [interval(report[arm][name]) for name in benchmarks]
            + [interval(report["means"][arm])]
            for arm in arms(report)
        ],
    )


def differences(report: dict[str, Any]) -> Table:
    """Differences of the means in words, paired over benchmark items."""
    rows = [
        [name.replace(" - ", " against "), change(each), f"{each['n']:,}"]
        for name, each in report["differences"].items()
    ]
    return Table(["mean over benchmarks", "difference", "items"], rows)


def counted(report: dict[str, Any]) -> Table:
    """Where every row went: strata or quarantine, and what each arm was trained on."""
    counts = report["counts"]
    chosen = counts["picks_strata"]
    total = counts["samples"]
    rows = [
        [
            stratum,
            f"{n:,}",
            share(n, total),
            *(f"{own.get(stratum, 0):,}" for own in chosen.values()),
        ]
        for stratum, n in counts["strata"].items()
    ]
    rows.append(
        ["quarantined", f"{counts['quarantined']:,}", share(counts["quarantined"], total)]
        + ["0"] * len(chosen)
    )
    sums = [f"{sum(own.values()):,}" for own in chosen.values()]
    rows.append(["all rows", f"{total:,}", "100.0 %", *sums])
    return Table(["stratum", "samples", "share", *(f"trained: {arm}" for arm in chosen)], rows)


def share(part: float, whole: float) -> str:
    """A part in percent of the whole, or `none` if there is no whole."""
    return f"{percent(part / whole)} %" if whole else "none"


def cost(report: dict[str, Any]) -> Table:
    """Generations, tokens and time of every stage."""
    rows = []
    for stage, spent in report["cost"]["by_stage"].items():
        kind, _, who = stage.partition(" ")
        name = f"{COST_NAMES[kind]}, {who}" if who else COST_NAMES[kind]
        numbers = [
            f"{spent[each]:,}" if each in spent else "" for each in ("generations", "tokens")
        ]
        rows.append([name, *numbers, duration(spent["seconds"])])
    return Table(["stage", "generations", "tokens", "time"], rows)


def grid_share(report: dict[str, Any]) -> str | None:
    """How much of the full ratio-by-draw grid was asked; None where no ladder was climbed."""
    cost = report["cost"]
    if "full_grid" not in cost:
        return None
    grid = report["settings"]["probe"]
    return (
        f"{percent(cost['share_of_grid'])} % of the full grid was asked "
        f"({len(grid['mask_percents'])} mask ratios x {grid['draws']} draws x "
        f"{sum(report['counts']['strata'].values()):,} samples = "
        f"{cost['full_grid']:,} generations)."
    )


def beside_the_score(report: dict[str, Any]) -> Table:
    """The settings a score depends on. Checkpoints marked under different ones are told apart."""
    names = dict.fromkeys(name for judged in report["judged"].values() for name in judged)
    rows = []
    for name in names:
        given = {who: plain(judged.get(name)) for who, judged in report["judged"].items()}
        same = len(set(given.values())) == 1
        told = (
            next(iter(given.values())) if same else listed([f"{v} ({w})" for w, v in given.items()])
        )
        rows.append([name.replace("_", " "), told])
    return Table(["evaluation setting", "value"], rows)


def plain(value: Any) -> str:
    """A settings value as a reader would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value) or "none"
    return "none" if value is None else str(value)


def quarantined(report: dict[str, Any]) -> Table:
    """Rows that could not become samples, by reason."""
    because = sorted(report["counts"]["quarantined_because"].items(), key=lambda each: -each[1])
    return Table(["reason", "rows"], [[reason, f"{n:,}"] for reason, n in because])


def unread(report: dict[str, Any]) -> str:
    """What the probe's grader could not read, which is not the same as wrong."""
    verdicts = report["counts"]["verdicts"]
    total = sum(verdicts.values())
    unreadable = verdicts.get(Verdict.unparsable, 0)
    cut = report["counts"]["cut_off"]
    return (
        f"Of {total:,} answers in the probe, {unreadable:,} ({share(unreadable, total)}) held no "
        f"answer that could be read and {cut:,} ({share(cut, total)}) were cut off at the token "
        "limit."
    )


def truth(report: dict[str, Any]) -> Table:
    """Drawn difficulty by stratum, known only in worlds we draw: does the measure find it?"""
    found = report["drawn_truth"]
    rows = [
        [
            stratum,
            f"{found[stratum]['n']:,}",
            f"{found[stratum]['gen_difficulty']:.2f}",
            share_of(found[stratum]["requires_image"]),
        ]
        for stratum in report["counts"]["strata"]
        if stratum in found
    ]
    return Table(["stratum", "samples", "mean drawn difficulty (0 to 1)", "need the picture"], rows)


def share_of(fraction: float | None) -> str:
    """A fraction in percent, or `unknown`."""
    return "unknown" if fraction is None else f"{percent(fraction)} %"
