"""Pictures of the difficulty: strata by family, what masking does, and one measure against another.

Each function gives the address of an inline SVG, or None where the run has nothing to show.
Not here: training and benchmarks (curves.py), captions (the page).
"""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false, reportReturnType=false

from collections.abc import Callable
from functools import wraps
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftrain.report.style import FAINT, INK, RULES, STRATUM_COLOURS, blank, embedded, percent_axis

LAST_TICK_GAP = 0.12


def picture(draw: Callable[..., Figure | None]) -> Callable[..., str | None]:
    """A function that draws a Figure, as one that gives its inline SVG, in the report's style."""

    @wraps(draw)
    def drawn(*arguments: Any) -> str | None:
        with mpl.rc_context(RULES):
            figure = draw(*arguments)
            return None if figure is None else embedded(figure)

    return drawn


def labelled_strata(samples: pd.DataFrame, measure: str) -> pd.Series:
    """The stratum of each sample as text, `unplaced` where the measure cannot say."""
    return samples[f"{measure}_stratum"].astype(object).fillna("unplaced").astype(str)


@picture
def strata_by_family(samples: pd.DataFrame, measure: str) -> Figure | None:
    """Shares of the strata, one bar a task family, the family with most hard samples on top."""
    if samples.empty:
        return None
    table = pd.crosstab(samples["task"], labelled_strata(samples, measure))
    table = table.reindex(columns=[each for each in STRATUM_COLOURS if each in table], fill_value=0)
    shares = table.div(table.sum(axis=1), axis=0)
    order = shares.assign(size=table.sum(axis=1)).sort_values(
        by=["hard", "medium"] if {"hard", "medium"} <= set(shares) else ["size"]
    )
    shares, table = shares.loc[order.index], table.loc[order.index]
    figure, grid = blank(8.6, 0.9 + 0.29 * len(table))
    axes, start = grid[0, 0], np.zeros(len(table))
    for stratum in shares:
        bars = axes.barh(
            shares.index, shares[stratum], left=start, height=0.72, label=stratum,
            color=STRATUM_COLOURS[str(stratum)], edgecolor="white", linewidth=1,
        )  # fmt: skip
        text = [
            str(n) if part > 0.04 else ""
            for n, part in zip(table[stratum], shares[stratum], strict=True)
        ]
        axes.bar_label(
            bars, text, label_type="center", fontsize=8.5,
            color=INK if stratum in ("easy", "unplaced") else "white",
        )  # fmt: skip
        start = start + shares[stratum].to_numpy()
    percent_axis(axes, "x")
    axes.set_xlim(0, 1)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    figure.legend(
        loc="outside upper left", ncols=5, handlelength=1, handleheight=1, columnspacing=1.4
    )
    return figure


def survival(failure_ratio: pd.Series, ratios: list[float]) -> list[float]:
    """Share of samples whose first failing ratio lies above each ratio (missing: it never fails).

    Early stopping does not touch it: a sample that failed is known to have failed from there on.
    """
    never = failure_ratio.isna()
    return [float((never | (failure_ratio > ratio + 1e-9)).mean()) for ratio in ratios]


@picture
def surviving(samples: pd.DataFrame, settings: dict[str, Any]) -> Figure | None:
    """How many samples of each family survive masking: small multiples over all samples in grey."""
    if "pism" not in samples:
        return None
    placed = samples.dropna(subset=["pism_stratum"])
    if placed.empty:
        return None
    ratios = [percent / 100 for percent in settings["probe"]["mask_percents"]]
    families = sorted(placed["task"].unique())
    columns = min(4, len(families))
    rows = -(-len(families) // columns)
    figure, grid = blank(8.6, 0.6 + 1.55 * rows, rows, columns, sharex=True, sharey=True)
    everything = survival(placed["pism"], ratios)
    for axes, family in zip(grid.flat, families, strict=False):
        own = placed[placed["task"] == family]
        shade_strata(axes, settings["difficulty"]["pism"], ratios[-1])
        axes.plot(ratios, everything, color="#9a9da3", linewidth=1.1, label="all families")
        axes.plot(ratios, survival(own["pism"], ratios), color=INK, linewidth=1.8, marker="o",
                  markersize=2.5, label="this family")  # fmt: skip
        axes.set_title(f"{family}  ({len(own)})")
        percent_axis(axes, top=1.03)
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlim(0, ratios[-1])
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    for axes in grid.flat[len(families) :]:
        axes.set_visible(False)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    figure.supxlabel("share of the picture that is hidden", fontsize=9.5, color=FAINT)
    return figure


def shade_strata(axes: Axes, bounds: dict[str, Any], last: float) -> None:
    """The ranges of the failure ratio that make a sample hard, medium or easy, as pale bands."""
    edges = [0, bounds["hard_max"], bounds["easy_min"], max(last, bounds["easy_min"])]
    for stratum, low, high in zip(("hard", "medium", "easy"), edges, edges[1:], strict=False):
        axes.axvspan(low, high, color=STRATUM_COLOURS[stratum], alpha=0.13, linewidth=0)


@picture
def two_measures(samples: pd.DataFrame, settings: dict[str, Any], measure: str) -> Figure | None:
    """Failure ratio against attention balance, coloured by the selecting measure's stratum."""
    if not {"pism", "cmab"} <= set(samples):
        return None
    shown = samples.dropna(subset=["cmab"])
    if shown.empty:
        return None
    bounds = settings["difficulty"]["cmab"]
    ratios = [percent / 100 for percent in settings["probe"]["mask_percents"]]
    never = ratios[-1] + LAST_TICK_GAP
    # Ratios lie on a grid: spread the points a little, the same way on every run.
    spread = (np.arange(len(shown)) * 0.618 % 1 - 0.5) * 0.05
    across = shown["pism"].fillna(never).to_numpy() + spread
    figure, grid = blank(7.2, 3.9)
    axes, strata = grid[0, 0], labelled_strata(shown, measure)
    axes.axhspan(
        bounds["hard_min"], bounds["hard_max"],
        color=STRATUM_COLOURS["hard"], alpha=0.09, linewidth=0,
    )  # fmt: skip
    for stratum, colour in STRATUM_COLOURS.items():
        own = (strata == stratum).to_numpy()
        if own.any():
            axes.scatter(
                across[own], shown["cmab"][own], s=18, color=colour, alpha=0.75, linewidths=0,
                label=f"{stratum} ({own.sum()})",
            )  # fmt: skip
    ticks = ratios[::2] if len(ratios) > 6 else ratios
    axes.set_xticks([*ticks, never], [*(f"{100 * each:.0f} %" for each in ticks), "never"])
    axes.set_xlabel("share hidden at which it first fails (\u03bb*)")
    axes.set_ylabel("attention on picture / text (mean \u03c1)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title=f"{measure} stratum",
                alignment="left", handletextpad=0.2)  # fmt: skip
    return figure


@picture
def balances(samples: pd.DataFrame, settings: dict[str, Any]) -> Figure | None:
    """Histogram of the attention balance by its own strata, where no mask ladder was climbed."""
    if "cmab" not in samples or "pism" in samples:
        return None
    shown = samples.dropna(subset=["cmab"])
    if shown.empty:
        return None
    strata = labelled_strata(shown, "cmab")
    present = [stratum for stratum in STRATUM_COLOURS if (strata == stratum).any()]
    figure, grid = blank(7.2, 2.8)
    axes = grid[0, 0]
    bins = np.histogram_bin_edges(shown["cmab"], bins=40)
    axes.hist(
        [shown["cmab"][strata == stratum] for stratum in present], bins=list(bins), stacked=True,
        color=[STRATUM_COLOURS[stratum] for stratum in present], label=present,
    )  # fmt: skip
    cmab = settings["difficulty"]["cmab"]
    for bound in ("easy_below", "hard_min", "hard_max", "easy_above"):
        axes.axvline(cmab[bound], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.set_xlabel("attention on picture / text (mean \u03c1); dashed: the strata's bounds")
    axes.set_ylabel("samples")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure
