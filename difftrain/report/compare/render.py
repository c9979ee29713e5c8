"""Write the comparison of runs as compare.md, compare.html, compare.csv and compare.tex."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftrain.pipeline import manifest
from difftrain.report import text
from difftrain.report.compare.presets import NEEDS_OWN_CONTROL, RAP_TITLES
from difftrain.report.compare.runs import Comparison, ComparisonRow
from difftrain.report.plots import ARM_COLORS, INK, RULE, name_rows, new_figure, svg_figure
from difftrain.report.text import NO_DIFFERENCE, percent, points
from difftrain.stats import MEAN, Estimate

ALPHA = 0.05  # significance level
BETTER, WORSE = "better", "worse"
NOT_AFTER_CORRECTION = "no difference shown after correction for the number of rows"
UNTESTED = "not tested"
UNEQUAL_SIZES = "no verdict: its control has another size"
VERDICT_COLORS = {BETTER: "#0b8068", WORSE: "#b3401f"}
NO_VERDICT_COLOR = "#7d8188"
COSTS = {
    "steps": "optimizer steps",
    "samples": "samples trained on",
    "tokens": "generated tokens",
    "seconds": "seconds",
}


def verdict(difference: Estimate) -> str:
    """`better` or `worse` if the 95 % interval excludes zero and p is below ALPHA.

    p is corrected for the number of rows. Interval and p cover the variance of benchmark items and,
    with several seeds, also the variance of training runs.
    """
    if difference.mean is None or difference.low is None or difference.high is None:
        return UNTESTED
    if difference.low <= 0 <= difference.high:
        return NO_DIFFERENCE
    if difference.p_corrected is None or difference.p_corrected >= ALPHA:
        return NOT_AFTER_CORRECTION
    return BETTER if difference.mean > 0 else WORSE


def row_verdict(row: ComparisonRow, column: str = MEAN) -> str:
    """The verdict on a row against its control; `no verdict: ...` if their sizes differ."""
    if row.versus_control is None:
        return UNTESTED
    result = verdict(row.versus_control.differences[column])
    return UNEQUAL_SIZES if row.size_mismatches and result != UNTESTED else result


def format_difference(difference: Estimate) -> str:
    """A difference and its interval as `+2.1 [0.4, 3.9]`, in percent points."""
    if difference.mean is None:
        return "none"
    if difference.low == difference.mean == difference.high == 0:
        return f"none of {difference.n:,} items differs"  # an interval of zero width would mislead
    return f"{points(difference.mean)} [{percent(difference.low)}, {percent(difference.high)}]"


def describe(row: ComparisonRow, column: str = MEAN) -> str:
    """The result of a row against its control, as `better, +2.1 [0.4, 3.9], one seed`."""
    if row.versus_control is None:
        return row.no_control
    difference = row.versus_control.differences[column]
    if difference.mean is None:
        return f"unknown: {difference.reason}"
    suffix = unequal_tokens(row) and f", {unequal_tokens(row)}"
    suffix += ", one seed" if len(row.versus_control.seeds) == 1 else ""
    return f"{row_verdict(row, column)}, {format_difference(difference)}{suffix}"


def unequal_tokens(row: ComparisonRow) -> str:
    """`2.3 times its control's tokens` if a row and its control differ in them; else empty."""
    tokens = row.versus_control.tokens if row.versus_control else None
    if tokens is None or not tokens.is_unequal:
        return ""
    return f"{tokens.ratio:.2g} times its control's tokens"


def format_score(estimate: Estimate) -> str:
    """A score and its interval as `58.6 [55.0, 62.1]`, in percent; `none` if there is none."""
    if estimate.mean is None:
        return "none"
    return f"{percent(estimate.mean)} [{percent(estimate.low)}, {percent(estimate.high)}]"


def format_p(p: float | None) -> str:
    """A p value with three decimals; `< 0.001` for smaller ones, empty for None."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def sentences(topic: str, *values: Any) -> list[str]:
    """The sentences that the macro `topic` of compare/sentences.jinja writes."""
    return text.sentences(topic, *values, template="compare/sentences.jinja")


def write_comparisons(folder: Path, comparisons: list[Comparison]) -> None:
    """Write compare.md, .html, .csv and .tex into `folder`."""
    lines = [
        line
        for comparison in comparisons
        for row in (comparison.base, *comparison.rows)
        for line in csv_lines(comparison, row)
    ]
    values = {"comparisons": comparisons, "sentences": sentences}
    page = text.templates().get_template("compare/compare.html.jinja")
    html = page.render(**values)
    markdown = text.render_markdown("compare/compare.md.jinja", **values)
    manifest.write_text(folder / "compare.md", markdown)
    manifest.write_text(folder / "compare.csv", pd.DataFrame(lines).to_csv(index=False))
    manifest.write_text(folder / "compare.tex", latex(comparisons))
    manifest.write_text(folder / "compare.html", html)


def latex(comparisons: list[Comparison]) -> str:
    """A LaTeX table for each comparison, in percent, with notes; it needs the package booktabs."""
    template = text.templates().get_template("compare/compare.tex.jinja")
    return template.render(comparisons=comparisons, sentences=sentences)


def csv_lines(comparison: Comparison, row: ComparisonRow) -> Iterator[dict[str, Any]]:
    """The lines of compare.csv for a row: one per benchmark, and one for the mean with the cost.

    Scores are fractions of 1; a missing score is empty.
    """
    cost = asdict(row.cost) if row.cost else {}
    for name in (*comparison.benchmarks, MEAN):
        score, versus = row.scores[name], row.versus_control
        difference = versus.differences[name] if versus else Estimate()
        yield {
            "model": comparison.model,
            "data": comparison.data,
            "measure": comparison.measure,
            "row": row.name,
            "title": row.title,
            "benchmark": name,
            "seeds": " ".join(map(str, row.seeds)),
            "score": score.mean,
            **{key: getattr(score, key) for key in ("low", "high", "n", "left_out")},
            "seed_scores": " ".join(f"{mean:.6f}" for mean in score.seed_means),
            "paper": row.paper.get(name),
            "control": versus.control if versus else "",
            "control_tokens": versus.tokens.control_tokens if versus and versus.tokens else None,
            "difference": difference.mean,
            "difference_low": difference.low,
            "difference_high": difference.high,
            **{key: getattr(difference, key) for key in ("p", "p_corrected", "test")},
            "verdict": describe(row, name) if versus else "",
            **{f"cost_{key}": value if name == MEAN else None for key, value in cost.items()},
        }


def row_color(row: ComparisonRow) -> str:
    """The color of `tuned` for rows with a control, that of `control` for other rows."""
    return ARM_COLORS["tuned" if row.versus_control is not None else "control"]


def row_axes(height: float, rows: list[ComparisonRow]) -> tuple[Figure, Axes]:
    """An empty figure in which row i of the table has the height y = i; row 0 is on top."""
    figure, axes = new_figure(8.6, height)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    name_rows(axes, range(len(rows)), [row.title for row in rows])
    axes.grid(axis="x")
    return figure, axes


def interval_in_percent(estimate: Estimate) -> tuple[float, float, float]:
    """Low end, mean and high end of an estimate in percent; 0 for a missing number."""
    low, mean, high = estimate.low or 0.0, estimate.mean or 0.0, estimate.high or 0.0
    return 100 * low, 100 * mean, 100 * high


@svg_figure
def differences_figure(comparison: Comparison) -> Figure | None:
    """Each row minus its control on the mean over benchmarks, with its 95 % interval."""
    differences = [
        (row, row.versus_control.differences[MEAN])
        for row in comparison.rows
        if row.versus_control and row.versus_control.differences[MEAN].mean is not None
    ]
    if not differences:
        return None
    figure, axes = row_axes(0.75 + 0.42 * len(differences), [row for row, _ in differences])
    axes.axvline(0, color=INK, linewidth=0.9)
    ends = [abs(end) for _, difference in differences for end in interval_in_percent(difference)]
    limit = 1.15 * max(ends) or 1.0  # 1.0 if all differences are zero
    for y, (row, difference) in enumerate(differences):
        color = VERDICT_COLORS.get(row_verdict(row), NO_VERDICT_COLOR)
        low, mean, high = interval_in_percent(difference)
        axes.hlines(y, low, high, color=color, linewidth=2, alpha=0.6)
        axes.plot([mean], [y], "o", color=color, markersize=6)
        seeds = [100 * value for value in difference.seed_means]
        if len(seeds) > 1:
            axes.plot(seeds, [y] * len(seeds), "|", color=INK, markersize=7, alpha=0.6)
        axes.annotate(describe(row), (1.01, y), xycoords=("axes fraction", "data"),
                      va="center", fontsize=8.5, color=color)  # fmt: skip
    axes.set_xlim(-limit, limit)
    axes.set_xlabel(f"percent points above the {comparison.control_word} (mean over benchmarks)")
    return figure


@svg_figure
def means_figure(comparison: Comparison) -> Figure | None:
    """Every row's mean over benchmarks with its interval; the base model's interval is a band."""
    rows = [row for row in comparison.rows if row.scores[MEAN].mean is not None]
    if not rows:
        return None
    figure, axes = row_axes(0.85 + 0.34 * len(rows), rows)
    if comparison.base.scores[MEAN].mean is not None:
        low, mean, high = interval_in_percent(comparison.base.scores[MEAN])
        axes.axvspan(low, high, color=RULE, linewidth=0)
        axes.axvline(mean, color=ARM_COLORS["base"], linewidth=1.2, label="base model")
    in_legend: set[str] = set()
    for y, row in enumerate(rows):
        (low, mean, high), color = interval_in_percent(row.scores[MEAN]), row_color(row)
        label = (
            f"with a {comparison.control_word}"
            if row.versus_control
            else "random, or without a control"
        )
        axes.hlines(y, low, high, color=color, linewidth=1.8, alpha=0.55)
        axes.plot([mean], [y], "o" if row.versus_control else "D", color=color, markersize=5.5,
                  label=None if label in in_legend else label)  # fmt: skip
        in_legend.add(label)
    axes.set_xlabel("mean over benchmarks, percent")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@svg_figure
def costs_figure(comparison: Comparison) -> Figure | None:
    """Mean score against steps, samples, generated tokens and seconds, one panel each.

    A full dot is at a row's cost of training. A hollow dot also includes the cost of selection.
    """
    rows = [row for row in comparison.rows if row.cost and row.scores[MEAN].mean is not None]
    if not rows:
        return None
    figure, grid = new_figure(8.6, 6.4, 2, 2, sharey=True)
    for axes, (name, title) in zip(grid.flat, COSTS.items(), strict=True):
        train_costs = [getattr(row.cost, name) for row in rows]
        select_costs = [getattr(row.cost, f"selection_{name}", 0.0) for row in rows]
        all_equal = len(set(train_costs)) == 1 and not any(select_costs)
        costs = zip(train_costs, select_costs, strict=True)
        for number, (row, (train, select)) in enumerate(zip(rows, costs, strict=True), 1):
            # Rows of equal cost would hide each other: shift the points sideways a little.
            shift = 0.03 * (train or 1.0) * (number - (len(rows) + 1) / 2) if all_equal else 0.0
            x, x_with_selection = train + shift, train + shift + select
            (low, mean, high), color = interval_in_percent(row.scores[MEAN]), row_color(row)
            axes.vlines(x, low, high, color=color, linewidth=1.2, alpha=0.35)
            if x_with_selection > x:
                axes.plot([x, x_with_selection], [mean, mean], color=color, linewidth=1,
                          linestyle=(0, (2, 2)))  # fmt: skip
                axes.plot([x_with_selection], [mean], "o", markerfacecolor="white",
                          markeredgecolor=color, markersize=5)  # fmt: skip
            axes.plot([x], [mean], "o", color=color, markersize=5.5)
            axes.annotate(str(number), (x_with_selection, mean), xytext=(5, 0), fontsize=8,
                          textcoords="offset points", va="center", color=INK)  # fmt: skip
        axes.set_title(title)
        axes.margins(x=0.08, y=0.12)
        axes.grid(axis="y")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if all_equal:
            axes.set_xticks(train_costs[:1])
        else:
            axes.set_xlim(left=0)
        base = comparison.base.scores[MEAN].mean
        if base is not None:
            axes.axhline(100 * base, color=ARM_COLORS["base"], linewidth=1)
    for axes in grid[:, 0]:
        axes.set_ylabel("mean over benchmarks, percent")
    return figure


text.templates().filters |= {  # for the templates in this folder
    "difference": format_difference,
    "estimate": format_score,
    "p_value": format_p,
    "row_verdict": row_verdict,
    "verdict": verdict,
}
text.templates().globals |= {
    "corrected_away": NOT_AFTER_CORRECTION,
    "costs_figure": costs_figure,
    "describe": describe,
    "differences_figure": differences_figure,
    "mean": MEAN,
    "means_figure": means_figure,
    "needs_own_control": NEEDS_OWN_CONTROL,
    "percent": percent,
    "rap_titles": RAP_TITLES,
    "unequal": UNEQUAL_SIZES,
    "unequal_tokens": unequal_tokens,
    "untested": UNTESTED,
}
