"""Pictures of a comparison: rows against their controls, all means, and scores by what they cost.

Each function gives the address of an inline SVG, or None where there is nothing to show.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftrain.report.comparison import words
from difftrain.report.comparison.content import MEAN, Comparison, Line
from difftrain.report.plots import picture
from difftrain.report.style import ARM_COLOURS, INK, RULE, blank

VERDICT_COLOURS = {words.BETTER: "#0b8068", words.WORSE: "#b3401f"}
UNSHOWN = "#7d8188"
COSTS = {
    "steps": "optimizer steps",
    "samples": "samples trained on",
    "tokens": "generated tokens",
    "seconds": "seconds",
}
CHOOSING = ("tokens", "seconds")
"""Costs to which choosing adds."""


def colour_of(line: Line) -> str:
    """Random controls in one colour, rows that choose in another."""
    return ARM_COLOURS["tuned" if line.against is not None else "control"]


@picture
def forest(comparison: Comparison) -> Figure | None:
    """Each row minus its random control on the mean over benchmarks, with its 95 % interval."""
    shown = [
        (line, line.against.differences[MEAN])
        for line in comparison.lines
        if line.against is not None and line.against.differences[MEAN].mean is not None
    ]
    if not shown:
        return None
    figure, grid = blank(8.6, 0.75 + 0.42 * len(shown))
    axes = grid[0, 0]
    axes.axvline(0, color=INK, linewidth=0.9)
    edge = max(abs(each) for _, d in shown for each in (d.low or 0.0, d.high or 0.0)) * 115 or 1.0
    for place, (line, difference) in enumerate(shown):
        colour = VERDICT_COLOURS.get(words.verdict_of(line), UNSHOWN)
        ends = (difference.low, difference.mean, difference.high)
        low, mean, high = (100 * (each or 0.0) for each in ends)
        axes.hlines(place, low, high, color=colour, linewidth=2, alpha=0.6)
        axes.plot([mean], [place], "o", color=colour, markersize=6)
        seeds = [100 * each for each in difference.seed_means]
        if len(seeds) > 1:
            axes.plot(seeds, [place] * len(seeds), "|", color=INK, markersize=7, alpha=0.6)
        axes.annotate(words.said(line), (1.01, place), xycoords=("axes fraction", "data"),
                      va="center", fontsize=8.5, color=colour)  # fmt: skip
    axes.set_yticks(range(len(shown)), [line.title for line, _ in shown])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(-edge, edge)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("percent points above the random control (mean over benchmarks)")
    return figure


@picture
def means(comparison: Comparison) -> Figure | None:
    """Every row's mean over benchmarks with its interval, and the base model's as a band."""
    lines = [line for line in comparison.lines if line.scores[MEAN].mean is not None]
    if not lines:
        return None
    figure, grid = blank(8.6, 0.85 + 0.34 * len(lines))
    axes, base = grid[0, 0], comparison.base.scores[MEAN]
    if base.mean is not None and base.low is not None and base.high is not None:
        axes.axvspan(100 * base.low, 100 * base.high, color=RULE, linewidth=0)
        axes.axvline(100 * base.mean, color=ARM_COLOURS["base"], linewidth=1.2, label="base model")
    told: set[str] = set()
    for place, line in enumerate(lines):
        each, colour = line.scores[MEAN], colour_of(line)
        name = "held against a random control" if line.against else "random, or without a control"
        axes.hlines(place, 100 * (each.low or 0), 100 * (each.high or 0), color=colour,
                    linewidth=1.8, alpha=0.55)  # fmt: skip
        axes.plot([100 * (each.mean or 0)], [place], "o" if line.against else "D", color=colour,
                  markersize=5.5, label=None if name in told else name)  # fmt: skip
        told.add(name)
    axes.set_yticks(range(len(lines)), [line.title for line in lines])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("mean over benchmarks, percent")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@picture
def costs(comparison: Comparison) -> Figure | None:
    """Mean score against steps, samples, generated tokens and seconds, one panel each.

    A row's dot stands at what its training took; a line leads on to where choosing is paid too.
    """
    lines = [line for line in comparison.lines if line.cost and line.scores[MEAN].mean is not None]
    if not lines:
        return None
    figure, grid = blank(8.6, 6.4, 2, 2, sharey=True)
    for axes, (name, title) in zip(grid.flat, COSTS.items(), strict=True):
        taken = [getattr(line.cost, name) for line in lines]
        alike = len(set(taken)) == 1 and not any(adds(line, name) for line in lines)
        places = spread(taken) if alike else taken
        for number, (line, place) in enumerate(zip(lines, places, strict=True), 1):
            dot(axes, line, name, place, number)
        axes.set_title(title)
        axes.margins(x=0.08, y=0.12)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if alike:
            axes.set_xticks(taken[:1])
        else:
            axes.set_xlim(left=0)
        base = comparison.base.scores[MEAN].mean
        if base is not None:
            axes.axhline(100 * base, color=ARM_COLOURS["base"], linewidth=1)
    for axes in grid[:, 0]:
        axes.set_ylabel("mean over benchmarks, percent")
    return figure


def spread(taken: list[float]) -> list[float]:
    """Places side by side around what all rows took alike."""
    step = 0.03 * (taken[0] or 1.0)
    return [each + step * (n - (len(taken) - 1) / 2) for n, each in enumerate(taken)]


def adds(line: Line, name: str) -> float:
    """What choosing a row's samples adds to one of its costs."""
    return getattr(line.cost, f"choosing_{name}") if name in CHOOSING else 0.0


def dot(axes: Axes, line: Line, name: str, at: float, number: int) -> None:
    """A row in one panel: its score, the interval, its number, and what choosing adds."""
    assert line.cost is not None
    each, colour = line.scores[MEAN], colour_of(line)
    mean = 100 * (each.mean or 0.0)
    axes.vlines(at, 100 * (each.low or 0), 100 * (each.high or 0), color=colour, linewidth=1.2,
                alpha=0.35)  # fmt: skip
    more = adds(line, name)
    if more:
        axes.plot([at, at + more], [mean, mean], color=colour, linewidth=1, linestyle=(0, (2, 2)))
        axes.plot([at + more], [mean], "o", markerfacecolor="white", markeredgecolor=colour,
                  markersize=5)  # fmt: skip
    axes.plot([at], [mean], "o", color=colour, markersize=5.5)
    axes.annotate(str(number), (at + more, mean), xytext=(5, 0), textcoords="offset points",
                  va="center", fontsize=8, color=INK)  # fmt: skip
