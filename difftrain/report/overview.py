"""Draw the figures that need no knowledge of the method: where the samples went, what a failure
ratio is, how answers fail as more of the image is masked, and what each stage cost.
"""

# pandas' stubs type most expressions as wide unions, so that pyright's reports are wrong here:
# pyright: reportArgumentType=false, reportReturnType=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from difftrain.config.difficulty import Until
from difftrain.report.plots import (
    ARM_COLORS,
    FAINT,
    INK,
    STRATUM_COLORS,
    name_rows,
    new_figure,
    svg_figure,
)
from difftrain.report.text import duration, share

COLUMN_X = (0.0, 1.0, 2.0)  # rows, strata, training
BAR_WIDTH = 0.1
GAP = 0.03  # between two bars of a column, as a share of all rows
REJECTED = "#d5d5d5"
PASSED, FAILED, NOT_DRAWN = ARM_COLORS["tuned"], "#b3401f", "#ebebe9"
STAGE_COLORS = {"probe": "#2f78b4", "attention": "#8cc5e3", "likelihood": "#8cc5e3",
                "retest": "#8cc5e3", "sft": "#d1542b", "train": "#d1542b",
                "evaluate": "#55585e"}  # fmt: skip
OTHER_STAGE = "#9a9da3"


@svg_figure
def sample_flow(report: dict[str, Any]) -> Figure | None:
    """All rows, their strata or rejection, and how many of each the tuned arm trained on."""
    counts = report["counts"]
    nodes = {name: n for name, n in counts["strata"].items() if n}
    if counts["quarantined"]:
        nodes["rejected"] = counts["quarantined"]
    if not nodes:
        return None
    picks = {
        name: strata
        for name, strata in counts["picks_strata"].items()
        if name.partition(",")[0] == "tuned"
    }
    total = counts["samples"]
    colors = STRATUM_COLORS | {"rejected": REJECTED}
    figure, axes = new_figure(8.6, 3.4)
    _draw_node(axes, COLUMN_X[0], 0, 1, INK, f"{total:,} rows", "right")
    targets = [*picks, "not trained on"]
    flows = {  # from a node of the middle column to one of the right column
        (name, target): picks[target].get(name, 0) if target in picks else 0
        for name in nodes
        for target in targets
    }
    for name, n in nodes.items():
        trained = sum(flows[name, target] for target in picks)
        flows[name, "not trained on"] = max(0, n - trained) if name != "rejected" else 0
    y, tops = 1.0, {}
    middle = 1 + GAP * (len(nodes) - 1) / 2
    for name, n in nodes.items():
        height = n / total
        _draw_band(axes, COLUMN_X[:2], (y, middle), height, colors[name])
        label = f"{name}  {n:,} ({share(n, total)})"
        _draw_node(axes, COLUMN_X[1], middle - height, middle, colors[name], label, "center")
        tops[name] = middle
        y -= height
        middle -= height + GAP
    right = 1.0
    for target in targets:
        height = sum(flows[name, target] for name in nodes) / total
        if not height:
            continue
        color = ARM_COLORS["tuned"] if target in picks else REJECTED
        title = f"trained on ({target.partition(', ')[2] or 'grpo'})" if target in picks else target
        label = f"{title}  {round(height * total):,}"
        _draw_node(axes, COLUMN_X[2], right - height, right, color, label, "left")
        for name in nodes:
            part = flows[name, target] / total
            if part:
                _draw_band(axes, COLUMN_X[1:], (tops[name], right), part, colors[name])
                tops[name] -= part
                right -= part
        right -= 2 * GAP
    axes.set_xlim(-0.45, 2.6)
    axes.set_axis_off()
    return figure


def _draw_node(
    axes: Axes, x: float, low: float, high: float, color: str, label: str, side: str
) -> None:
    """A bar of a column with its label: beside it, or above its lower edge if `side` is center."""
    axes.add_patch(Rectangle((x - BAR_WIDTH / 2, low), BAR_WIDTH, high - low, color=color, lw=0))
    shift = BAR_WIDTH / 2 + 0.03
    align = {"right": "right", "left": "left", "center": "left"}[side]
    at = x - shift if side == "right" else x + shift
    axes.text(at, (low + high) / 2, label, ha=align, va="center", color=INK, fontsize=9,
              zorder=5)  # fmt: skip


def _draw_band(
    axes: Axes, x: tuple[float, ...], tops: tuple[float, float], height: float, color: str
) -> None:
    """A band of this height between two columns, from one upper edge to the other."""
    t = np.linspace(0, 1, 30)
    top = tops[0] + (tops[1] - tops[0]) * t * t * (3 - 2 * t)
    at = x[0] + BAR_WIDTH / 2 + t * (x[1] - x[0] - BAR_WIDTH)
    axes.fill_between(at, top - height, top, color=color, alpha=0.3, linewidth=0)


@svg_figure
def failure_ladders(
    examples: dict[str, list[dict[str, Any]]], settings: dict[str, Any]
) -> Figure | None:
    """A row for one sample of each stratum, a cell for each mask ratio: passed, failed, not drawn.

    The first failed ratio is the sample's failure ratio, λ*.
    """
    if str(settings["difficulty"]["measure"]) != "pism":
        return None
    rows = [
        (stratum, examples[stratum][0])
        for stratum in STRATUM_COLORS
        if examples.get(stratum) and stratum != "unplaced"
    ]
    if not rows:
        return None
    percents = settings["probe"]["mask_percents"]
    figure, axes = new_figure(8.6, 0.75 + 0.42 * len(rows))
    for y, (stratum, example) in enumerate(rows):
        ratio = example["failure_ratio"]
        for x, percent in enumerate(percents):
            correct, total = example["draws"].get(percent, (0, 0))
            failed = ratio is not None and percent == round(100 * ratio)
            color = FAILED if failed else PASSED if total else NOT_DRAWN
            axes.add_patch(Rectangle((x - 0.46, y - 0.36), 0.92, 0.72, color=color, lw=0))
            text = f"{correct} of {total}" if total else ""
            axes.text(x, y, text, ha="center", va="center", color="white", fontsize=8)
        star = "never fails" if ratio is None else f"λ* = {ratio:.1f}"
        if ratio is None and stratum == "easy" and settings["probe"]["until"] == Until.stratum:
            star = f"λ* ≥ {settings['difficulty']['pism']['easy_min']:.1f}"
        axes.text(len(percents) - 0.35, y, star, ha="left", va="center", color=INK, fontsize=9)
    axes.set_xlim(-0.6, len(percents) + 1)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xticks(range(len(percents)), [f"{percent} %" for percent in percents])
    axes.set_xlabel("share of the image that is masked")
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)
    name_rows(axes, range(len(rows)), [stratum for stratum, _ in rows])
    return figure


@svg_figure
def survival_curve(samples: pd.DataFrame, settings: dict[str, Any]) -> Figure | None:
    """The share of all samples that are still answered as more of the image is masked.

    Each band has the share of samples that fail first in it, which is the size of a stratum.
    """
    if "pism" not in samples or bool(samples["pism_stratum"].isna().all()):
        return None
    scored = samples.dropna(subset=["pism_stratum"])
    pism = settings["difficulty"]["pism"]
    ratios = [percent / 100 for percent in settings["probe"]["mask_percents"]]
    if settings["probe"]["until"] == Until.stratum:  # the ratios of easy samples are not known
        ratios = [ratio for ratio in ratios if ratio < pism["easy_min"] - 1e-9]
    failure_ratio = scored["pism"]
    alive = [
        float((failure_ratio.isna() | (failure_ratio > ratio + 1e-9)).mean()) for ratio in ratios
    ]
    end = max(ratios[-1], pism["easy_min"]) + 0.12
    figure, axes = new_figure(8.6, 2.9)
    edges = (0, pism["hard_max"], pism["easy_min"], end)
    shares = scored["pism_stratum"].astype(str).value_counts(normalize=True)
    for stratum, low, high in zip(("hard", "medium", "easy"), edges, edges[1:], strict=False):
        color = STRATUM_COLORS[stratum]
        axes.axvspan(low, high, color=color, alpha=0.13, linewidth=0)
        label = f"{stratum}: {share(float(shares.get(stratum, 0.0)))}"
        axes.text((low + high) / 2, 1.06, label, ha="center", va="bottom", color=INK, fontsize=9)
    axes.plot(ratios, alive, color=INK, linewidth=1.8, marker="o", markersize=4, zorder=3)
    for ratio, value in zip(ratios, alive, strict=True):
        axes.annotate(f"{100 * value:.0f}", (ratio, value), xytext=(4, 4), ha="left",
                      textcoords="offset points", fontsize=8, color=FAINT)  # fmt: skip
    unsolved = 1 - alive[0]
    if unsolved > 0.01:
        axes.annotate(
            f"unsolved: {share(unsolved)}", (0, 1 - unsolved / 2), xytext=(-8, 0), ha="right",
            va="center", textcoords="offset points", fontsize=9, color=INK,
        )  # fmt: skip
        axes.plot([-0.006, -0.006], [alive[0], 1], color=STRATUM_COLORS["unsolved"], linewidth=4,
                  solid_capstyle="butt", clip_on=False)  # fmt: skip
    axes.set(xlim=(-0.2 if unsolved > 0.01 else -0.02, end), ylim=(0, 1.04), yticks=[0, 0.5, 1])
    axes.set_xticks(ratios)
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    axes.set_xlabel("share of the image that is masked")
    axes.set_ylabel("samples still answered")
    axes.grid(axis="y")
    return figure


@svg_figure
def stage_times(report: dict[str, Any]) -> Figure | None:
    """A bar for the time of each stage that took at least one percent of the run."""
    seconds = {name: stage["seconds"] for name, stage in report["cost"]["by_stage"].items()}
    total = sum(seconds.values())
    if not total:
        return None
    bars = {name: value for name, value in seconds.items() if value >= 0.01 * total}
    figure, axes = new_figure(8.6, 0.3 + 0.3 * len(bars))
    for y, (name, value) in enumerate(bars.items()):
        kind = name.partition(",")[0].partition(" ")[0]
        axes.barh(y, value, height=0.66, color=STAGE_COLORS.get(kind, OTHER_STAGE))
        axes.text(value + 0.01 * total, y, f"{duration(value)} ({share(value, total)})",
                  va="center", color=INK, fontsize=9)  # fmt: skip
    name_rows(axes, range(len(bars)), list(bars))
    axes.set_xlim(0, 1.25 * max(bars.values()))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return figure
