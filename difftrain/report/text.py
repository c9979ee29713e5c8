"""A report's numbers, sentences (from the templates) and tables, for markdown and HTML alike."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2

from difftrain.config.train import DROP_REASONS
from difftrain.grade.reward_hacking import ALARM_LIMITS, ALARM_MEANINGS, ALARM_WINDOW
from difftrain.records import Stratum

MINUS = "\u2212"
TEX_SPECIAL = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        MINUS: "$-$",
    }
)
NUMBER_WORDS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
)
NO_DIFFERENCE = "no difference shown"
DIVERGENCE = "reward_rises_held_out_falls"
"""The alarm that compares training reward and held-out accuracy; the others look at responses."""
MEASURE_NAMES = {"pism": "PISM", "cmab": "CMAB", "cde": "CDE", "ace": "ACE", "drm": "DRM"}
ARM_NAMES = {"base": "base", "tuned": "tuned", "control": "control (random, equal size)"}
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


def one_line(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.splitlines())


def join_words(words: list[str]) -> str:
    """`hard`, `medium and hard`, `easy, medium and hard`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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


def escape_cell(text: str) -> str:
    """A cell without what would break a markdown table or be taken for HTML."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def undecided_share(score: dict[str, Any]) -> str:
    """`12.0 % undecided`: the share of a score's items that nothing decided; they count 0."""
    return f"{percent(score['undecided'] / score['n'])} % undecided"


def score_with_interval(score: dict[str, Any]) -> str:
    """`48.3 [44.0, 52.1]`: a score and its 95 % interval in percent; `none` without a score."""
    if score["score"] is None:
        return "none"
    text = f"{percent(score['score'])} [{percent(score['low'])}, {percent(score['high'])}]"
    return f"{text}, {undecided_share(score)}" if score.get("rules_only") else text


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


def items_by_arm(report: dict[str, Any], name: str, *less: str) -> str:
    """`3 of base, 1 of tuned`: a count of the arms' scores minus other counts, without zeros."""
    counts = {
        arm: sum(
            score.get(name, 0) - sum(score.get(other, 0) for other in less)
            for score in report[arm].values()
        )
        for arm in report["means"]
    }
    return ", ".join(f"{count:,} of {arm}" for arm, count in counts.items() if count)


@cache
def templates() -> jinja2.Environment:
    """The report's templates with their filters; values are escaped in HTML only."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("difftrain", "report"),
        autoescape=lambda name: bool(name and name.endswith(".html.jinja")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cell": escape_cell,
        "join_words": lambda words: join_words(list(map(str, words))),
        "number": "{:,.0f}".format,
        "number_word": number_word,
        "one_line": one_line,
        "percent": percent,
        "points": points,
        "share": share,
        "tex": lambda text: text.translate(TEX_SPECIAL),
    }
    environment.globals |= {
        "alarm_meanings": ALARM_MEANINGS,
        "difference_in_words": difference_in_words,
        "divergence": DIVERGENCE,
        "drop_reasons": DROP_REASONS,
        "items_by_arm": items_by_arm,
        "no_difference": NO_DIFFERENCE,
        "verdict_of": verdict,
    }
    return environment


def render_markdown_file(template: str, **values: Any) -> str:
    """A markdown file from its template, with at most one blank line in succession."""
    content = templates().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", content).strip() + "\n"


def sentences(topic: str, *values: Any, template: str = "sentences.jinja") -> list[str]:
    """The sentences that a macro of the template writes on a report, in order."""
    macro = getattr(templates().get_template(template).module, topic)
    return [line.strip() for line in macro(*values).split("\n") if line.strip()]


def sentence(topic: str, *values: Any, template: str = "sentences.jinja") -> str:
    """The one sentence that a macro of the template writes; empty if there is nothing to say."""
    return "".join(sentences(topic, *values, template=template))


@dataclass(frozen=True, slots=True)
class Table:
    """A head and rows of the same length, all text."""

    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in markdown; the first column is aligned left, the others right."""
        lines = [self.head, ["---", *["--:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(map(escape_cell, line)) + " |" for line in lines)


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
        [stratum, f"{n:,}", share(n, total)]
        + [f"{by_stratum.get(stratum, 0):,}" for by_stratum in selected.values()]
        for stratum, n in (counts["strata"] | {"quarantined": counts["quarantined"]}).items()
    ]
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


def evaluation_table(report: dict[str, Any]) -> Table:
    """The settings a score depends on; where they differ, with the arm in brackets."""
    evaluation = report["evaluation"]
    rows = []
    for name in dict.fromkeys(name for settings in evaluation.values() for name in settings):
        values = {arm: format_value(settings.get(name)) for arm, settings in evaluation.items()}
        distinct = list(dict.fromkeys(values.values()))
        if len(distinct) > 1:
            distinct = [join_words([f"{value} ({arm})" for arm, value in values.items()])]
        rows.append([name.replace("_", " "), *distinct])
    return Table(["evaluation setting", "value"], rows)


def quarantine_table(report: dict[str, Any]) -> Table:
    """Rows that could not become samples, by reason."""
    reasons = sorted(report["counts"]["quarantine_reasons"].items(), key=lambda item: -item[1])
    return Table(["reason", "rows"], [[reason, f"{n:,}"] for reason, n in reasons])


def gen_difficulty_table(report: dict[str, Any]) -> Table:
    """The difficulty samples were generated with, by stratum: does the measure recover it?"""
    known = report["gen_difficulty"]
    rows = [
        [
            stratum,
            f"{known[stratum]['n']:,}",
            f"{known[stratum]['gen_difficulty']:.2f}",
            percent_or_unknown(known[stratum]["requires_image"]),
        ]
        for stratum in report["counts"]["strata"]
        if stratum in known
    ]
    return Table(["stratum", "samples", "mean difficulty (0 to 1)", "require the image"], rows)


def selecting_measures(report: dict[str, Any]) -> str:
    """The measures that selected the samples: `CDE, ACE and DRM`."""
    return join_words([MEASURE_NAMES[step] for step in report["funnel"]["steps"]])


def funnel_rows(funnel: dict[str, Any]) -> list[tuple[str, int, int, str]]:
    """(step, samples left, of these brought in, what happened to the others), in order."""
    left = funnel["after_ace"] - funnel["removed_easy"]
    by_cde = funnel["pool"] - funnel["after_cde"]
    by_ace = funnel["after_cde"] - funnel["after_ace"]
    cde = f"{by_cde:,} dropped: the image does not add enough"
    ace = f"{by_ace:,} dropped: the response depends on one token"
    easy = f"{funnel['removed_easy']:,} removed: always correct"
    added = f"{funnel['brought_in']:,} of {funnel['candidates']:,} candidates brought in"
    rows = {
        "cde": [("CDE: the image helps", funnel["after_cde"], 0, cde)],
        "ace": [("ACE: not biased", funnel["after_ace"], 0, ace)],
        "drm": [
            ("DRM: not easy", left, 0, easy),
            ("DRM: replaced", funnel["chosen"], funnel["brought_in"], added),
        ],
    }
    return [
        ("pool", funnel["pool"], 0, ""),
        *(row for step in rows if step in funnel["steps"] for row in rows[step]),
        ("trained on", funnel["chosen"], funnel["brought_in"], ""),
    ]


def label_change_table(report: dict[str, Any]) -> Table:
    """The uncorrected stratum by row, the corrected one by column."""
    labels: dict[str, dict[str, int]] = report["chance_correction"]["labels"]
    present = {*labels, *(stratum for row in labels.values() for stratum in row)}
    strata = [stratum.value for stratum in Stratum if stratum in present]
    return Table(
        ["without correction", *(f"corrected: {stratum}" for stratum in strata)],
        [[row, *(f"{labels.get(row, {}).get(name, 0):,}" for name in strata)] for row in strata],
    )


def changed_by_task_table(report: dict[str, Any]) -> Table:
    """How many samples of each task change their stratum by the correction, most affected first."""
    tasks = report["chance_correction"]["changed_by_task"].items()
    return Table(
        ["task", "samples", "changed", "share"],
        [
            [task, f"{row['n']:,}", f"{row['changed']:,}", share(row["changed"], row["n"])]
            for task, row in sorted(tasks, key=lambda item: -item[1]["changed"] / item[1]["n"])
        ],
    )


def retest_table(report: dict[str, Any]) -> Table:
    """The share of samples that keep their label when generated again with other seeds."""
    rows, measures = [], report["retest"]["measures"]
    for measure, name in MEASURE_NAMES.items():
        if row := measures.get(measure):
            kept = f"{percent(row['share'])} % [{percent(row['low'])}, {percent(row['high'])}]"
            above = row["low"] > row["by_chance"]
            result = "above chance" if above else "not shown to be above chance"
            by_chance = percent_or_unknown(row["by_chance"])
            rows.append([name, f"{row['n']:,}", kept, by_chance, result])
    return Table(["measure", "samples", "keep their label", "by chance", "result"], rows)


def alarm_table(report: dict[str, Any]) -> Table:
    """Every alarm: its largest share in each arm, its limit and when it was raised."""

    def largest_share(alarm: dict[str, Any]) -> str:
        since = "" if alarm["step"] is None else f", alarm from step {alarm['step']}"
        share = alarm["max_share"]
        return "not counted" if share is None else f"{percent(share)} %{since}"

    def held_out(alarm: dict[str, Any]) -> str:
        if alarm["raised"] is None:
            return "not measured"
        suffix = ", alarm" if alarm["raised"] else ""
        return f"{percent(alarm['first'])} % to {percent(alarm['last'])} %{suffix}"

    by_arm = {arm: each["alarms"] for arm, each in report["training"].items() if each["alarms"]}
    rows = [
        [
            ALARM_MEANINGS[alarm],
            *(largest_share(raised[alarm.value]) for raised in by_arm.values()),
            f"{percent(limit)} %",
        ]
        for alarm, limit in ALARM_LIMITS.items()
    ]
    divergence = [held_out(raised[DIVERGENCE]) for raised in by_arm.values()]
    rows.append(["reward rises, held-out accuracy falls", *divergence, "2 standard errors"])
    return Table([f"share of responses, mean of {ALARM_WINDOW} steps", *by_arm, "limit"], rows)


def rewards_table(report: dict[str, Any]) -> Table:
    """Accuracy rewards by task and stratum: first third of the steps, then the last."""
    by_arm = {arm: each["rewards"] for arm, each in report["training"].items()}
    parts = ("responses", "first third", "last third")
    rows = []
    for subset in sorted({subset for rewards in by_arm.values() for subset in rewards}):
        cells = []
        for rewards in by_arm.values():
            row = rewards.get(subset, {"responses": 0, "first": None, "last": None})
            cells += [f"{row['responses']:,.0f}", percent(row["first"]), percent(row["last"])]
        rows.append([subset.replace("/", ": "), *cells])
    head = [f"{arm}: {part}" for arm in by_arm for part in parts]
    return Table(["accuracy reward, percent", *head], rows)
