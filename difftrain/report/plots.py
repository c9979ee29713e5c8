"""Draw the report's figures: difficulty, training curves, benchmark scores.

Each figure function returns a `data:` URL with an SVG, or None if the run has nothing to show. The
colors remain distinct under the common kinds of color blindness, and every arm has its own marker.
Captions are in page.html.jinja.
"""

# pandas' stubs type most expressions as wide unions, so that pyright's reports are wrong here:
# pyright: reportArgumentType=false, reportReturnType=false

from base64 import b64encode
from collections.abc import Callable
from functools import wraps
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from difftrain.config.difficulty import Until
from difftrain.report.inputs import by_round
from difftrain.report.text import table

STRATUM_COLORS = {
    "easy": "#8cc5e3",
    "medium": "#2f78b4",
    "hard": "#d1542b",
    "unsolved": "#55585e",
    "unplaced": "#d5d5d5",  # samples without a stratum
}
ARM_COLORS = {"base": "#6f7278", "tuned": "#0b8068", "control": "#b5649b"}
ARM_MARKERS = {"base": "s", "tuned": "o", "control": "D"}
INK, FAINT, RULE = "#26282c", "#6b6f76", "#e3e4e6"  # text, secondary text, pale areas

STYLE_FILE = Path(__file__).with_name("figures.mplstyle")
# Otherwise the file would contain the date and external URLs.
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
MAX_VECTOR_POINTS = 2000  # of more points, an SVG would take megabytes: they become pixels
RASTER_DPI = 150
NEVER_TICK_GAP = 0.12  # from the largest mask ratio to the tick `never` (the sample never fails)


def new_figure(width: float, height: float, *shape: int, **options: Any) -> tuple[Figure, Any]:
    """A figure (size in inches) with rows and columns of axes, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*shape, **options)


def svg_figure(draw: Callable[..., Figure | None]) -> Callable[..., str | None]:
    """Decorator: turns a Figure into a `data:` URL with an SVG; equal data give equal bytes."""

    @wraps(draw)
    def draw_svg(*args: Any) -> str | None:
        with mpl.rc_context(fname=STYLE_FILE):
            figure = draw(*args)
            if figure is None:
                return None
            buffer = BytesIO()
            figure.savefig(buffer, format="svg", dpi=RASTER_DPI, transparent=True,
                           metadata=NO_METADATA)  # fmt: skip
        return f"data:image/svg+xml;base64,{b64encode(buffer.getvalue()).decode()}"

    return draw_svg


def name_rows(axes: Axes, positions: Any, names: list[str]) -> None:
    """Label horizontal rows with names instead of ticks; the first row is on top."""
    axes.set_yticks(positions, names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()


def stratum_labels(samples: pd.DataFrame, measure: str) -> pd.Series:
    """The stratum of each sample as text; `unplaced` if it has none."""
    return samples[f"{measure}_stratum"].astype(object).fillna("unplaced").astype(str)


@svg_figure
def strata_by_task(samples: pd.DataFrame, measure: str) -> Figure | None:
    """One bar per task with the shares of its strata; tasks with many hard samples come first."""
    if samples.empty:
        return None
    counts = pd.crosstab(samples["task"], stratum_labels(samples, measure))
    counts = counts[[stratum for stratum in STRATUM_COLORS if stratum in counts]]
    shares = counts.div(counts.sum(axis=1), axis=0)
    sort_keys = ["hard", "medium"] if {"hard", "medium"} <= set(shares) else ["size"]
    shares = shares.assign(size=counts.sum(axis=1)).sort_values(sort_keys)[counts.columns]
    counts = counts.loc[shares.index]
    figure, axes = new_figure(8.6, 0.9 + 0.29 * len(counts))
    start = np.zeros(len(counts))
    for stratum in shares:
        bars = axes.barh(
            shares.index, shares[stratum], left=start, height=0.72, label=stratum,
            color=STRATUM_COLORS[str(stratum)], edgecolor="white", linewidth=1,
        )  # fmt: skip
        labels = counts[stratum].astype(str).where(shares[stratum] > 0.04, "")
        axes.bar_label(
            bars, labels, label_type="center", fontsize=8.5,
            color=INK if stratum in ("easy", "unplaced") else "white",
        )  # fmt: skip
        start = start + np.asarray(shares[stratum])
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    axes.set_xlim(0, 1)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    square = {"handlelength": 1, "handleheight": 1, "columnspacing": 1.4}
    figure.legend(loc="outside upper left", ncols=5, **square)
    return figure


@svg_figure
def shares_without_failure(samples: pd.DataFrame, settings: dict[str, Any]) -> Figure | None:
    """For each task, the share of samples without a failure up to each mask ratio.

    The mask ratio is the masked share of the image; a sample's failure ratio is the first at which
    the model fails. The gray curve shows all tasks. Pale bands show the failure ratios of hard,
    medium and easy samples. After its first failure, a sample counts as failed at higher ratios.
    """

    def shares(failure_ratio: pd.Series) -> list[float]:
        never_fails = failure_ratio.isna()  # 1e-9: ratios are not exact in floating point
        return [float((never_fails | (failure_ratio > ratio + 1e-9)).mean()) for ratio in ratios]

    if "pism" not in samples or bool(samples["pism_stratum"].isna().all()):
        return None
    scored = samples.dropna(subset=["pism_stratum"])
    ratios = [percent / 100 for percent in settings["probe"]["mask_percents"]]
    if settings["probe"]["until"] == Until.stratum:  # the ratios of easy samples are not known
        easy_min = settings["difficulty"]["pism"]["easy_min"]
        ratios = [ratio for ratio in ratios if ratio < easy_min - 1e-9]
    tasks = sorted(scored["task"].unique())
    num_columns = min(4, len(tasks))
    num_rows = ceil(len(tasks) / num_columns)
    options = {"sharex": True, "sharey": True, "squeeze": False}
    figure, grid = new_figure(8.6, 0.6 + 1.55 * num_rows, num_rows, num_columns, **options)
    all_tasks, pism = shares(scored["pism"]), settings["difficulty"]["pism"]
    edges = [0, pism["hard_max"], pism["easy_min"], max(ratios[-1], pism["easy_min"])]
    for axes, task in zip(grid.flat, tasks, strict=False):
        subset = scored[scored["task"] == task]
        for stratum, low, high in zip(("hard", "medium", "easy"), edges, edges[1:], strict=False):
            axes.axvspan(low, high, color=STRATUM_COLORS[stratum], alpha=0.13, linewidth=0)
        axes.plot(ratios, all_tasks, color="#9a9da3", linewidth=1.1, label="all tasks")
        axes.plot(ratios, shares(subset["pism"]), color=INK, linewidth=1.8, marker="o",
                  markersize=2.5, label="this task")  # fmt: skip
        axes.set_title(f"{task}  ({len(subset)})")
        axes.set(xlim=(0, ratios[-1]), ylim=(0, 1.03), yticks=[0, 0.5, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        axes.grid(axis="y")
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    figure.supxlabel("share of the image that is masked", fontsize=9.5, color=FAINT)
    return figure


@svg_figure
def pism_against_cmab(
    samples: pd.DataFrame, settings: dict[str, Any], measure: str
) -> Figure | None:
    """A point per sample: failure ratio (PISM), attention on image / text (CMAB), its stratum."""
    if not {"pism", "cmab"} <= set(samples) or bool(samples["cmab"].isna().all()):
        return None
    scored = samples.dropna(subset=["cmab"])
    cmab = settings["difficulty"]["cmab"]
    ratios = [percent / 100 for percent in settings["probe"]["mask_percents"]]
    never_tick = ratios[-1] + NEVER_TICK_GAP
    # Many samples share a ratio: shift points sideways by multiples of the golden ratio, modulo 1.
    jitter = (np.arange(len(scored)) * 0.618 % 1 - 0.5) * 0.05
    x = scored["pism"].fillna(never_tick).to_numpy() + jitter
    figure, axes = new_figure(7.2, 3.9)
    strata = stratum_labels(scored, measure)
    color = STRATUM_COLORS["hard"]
    axes.axhspan(cmab["hard_min"], cmab["hard_max"], color=color, alpha=0.09, linewidth=0)
    for stratum, color in STRATUM_COLORS.items():
        members = (strata == stratum).to_numpy()
        if members.any():
            axes.scatter(
                x[members], scored["cmab"][members], s=18, color=color, alpha=0.75, linewidths=0,
                label=f"{stratum} ({members.sum()})", rasterized=len(scored) > MAX_VECTOR_POINTS,
            )  # fmt: skip
    is_exact = settings["probe"]["until"] != Until.stratum
    never = "never" if is_exact else "never or not probed"
    ticks = ratios[::2] if len(ratios) > 6 else ratios
    axes.set_xticks([*ticks, never_tick], [*(f"{100 * tick:.0f} %" for tick in ticks), never])
    axes.set_xlabel("masked share at which it first fails (\u03bb*)")
    axes.set_ylabel("attention on image / text (mean \u03c1)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), title=f"{measure} stratum",
                alignment="left", handletextpad=0.2)  # fmt: skip
    return figure


@svg_figure
def cmab_histogram(samples: pd.DataFrame, settings: dict[str, Any]) -> Figure | None:
    """Histogram of CMAB (image / text attention) colored by stratum; None if PISM was measured."""
    if "cmab" not in samples or "pism" in samples or bool(samples["cmab"].isna().all()):
        return None
    scored = samples.dropna(subset=["cmab"])
    strata = stratum_labels(scored, "cmab")
    present = [stratum for stratum in STRATUM_COLORS if (strata == stratum).any()]
    figure, axes = new_figure(7.2, 2.8)
    bins = np.histogram_bin_edges(scored["cmab"], bins=40)
    axes.hist(
        [scored["cmab"][strata == stratum] for stratum in present], bins=list(bins), stacked=True,
        color=[STRATUM_COLORS[stratum] for stratum in present], label=present,
    )  # fmt: skip
    cmab = settings["difficulty"]["cmab"]
    for bound in ("easy_below", "hard_min", "hard_max", "easy_above"):
        axes.axvline(cmab[bound], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.set_xlabel("attention on image / text (mean \u03c1); dashed: the strata's bounds")
    axes.set_ylabel("samples")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


# Columns of train_log.jsonl, and the titles of their panels in the figure.
ZERO_VARIANCE = "frac_reward_zero_std"
TRAINING_PANELS = {
    "reward": "mean reward",
    ZERO_VARIANCE: "zero-variance groups: all responses to a prompt got the same reward",
    "completions/mean_length": "mean response length, tokens",
}


def mark_rounds(axes: Axes, logs: dict[str, pd.DataFrame]) -> None:
    """A dashed rule between two rounds of training; all arms make the same steps."""
    for rows in by_round(next(iter(logs.values())))[1:]:
        axes.axvline(rows["step"].iloc[0] - 0.5, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))


@svg_figure
def training_curves(logs: dict[str, pd.DataFrame]) -> Figure | None:
    """A panel for each of TRAINING_PANELS: values by step (pale) and their running mean, by arm.

    A curve begins anew in each round, which trains on other samples; a dashed rule separates them.
    """
    logged = {name for log in logs.values() for name in log.dropna(axis="columns", how="all")}
    panels = [name for name in TRAINING_PANELS if name in logged]
    if not panels:
        return None
    height = 0.5 + 1.75 * len(panels)
    figure, grid = new_figure(8.6, height, len(panels), 1, sharex=True, squeeze=False)
    for axes, name in zip(grid[:, 0], panels, strict=True):
        for arm, log in logs.items():
            if name not in log:
                continue
            for number, rows in enumerate(by_round(log)):
                steps, color = rows.dropna(subset=[name]), ARM_COLORS[arm]
                window = max(3, len(steps) // 10)
                mean = steps[name].rolling(window, center=True, min_periods=1).mean()
                axes.plot(steps["step"], steps[name], color=color, alpha=0.22, linewidth=0.9)
                axes.plot(steps["step"], mean, color=color, linewidth=1.8,
                          label=None if number else arm)  # fmt: skip
        mark_rounds(axes, logs)
        axes.set_title(TRAINING_PANELS[name])
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        if name == ZERO_VARIANCE:
            axes.set_ylim(0, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    grid[-1, 0].set_xlabel("optimizer step")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


@svg_figure
def benchmark_scores(report: dict[str, Any]) -> Figure | None:
    """Scores as dots with 95 % intervals, a line per benchmark and arm; the mean comes last."""
    names = [*report["base"], "mean"]
    figure, axes = new_figure(8.6, 0.8 + 0.42 * len(names))
    y_N = np.arange(len(names), dtype=float)  # N benchmarks and the mean
    y_N[-1] += 0.35  # a gap above the mean; a rule is drawn in it
    for index, arm in enumerate(report["means"]):
        scores = [*(report[arm][name] for name in names[:-1]), report["means"][arm]]
        offset = (index - (len(report["means"]) - 1) / 2) * 0.22  # keeps the arms apart
        row_N = pd.DataFrame(scores)[["low", "score", "high"]].astype(float).assign(y=y_N + offset)
        low, mean, high, y = row_N.dropna().to_numpy().T
        axes.hlines(y, low, high, color=ARM_COLORS[arm], linewidth=1.6, alpha=0.55)
        axes.plot(mean, y, ARM_MARKERS[arm], label=arm, color=ARM_COLORS[arm], markersize=5.5,
                  clip_on=False)  # fmt: skip
    name_rows(axes, y_N, names)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.axhline(len(names) - 1.33, color="#a9acb1", linewidth=0.8)  # in the gap
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    axes.grid(axis="x")
    axes.set_xlim(0, 1)
    figure.legend(loc="outside upper left", ncols=3)
    return figure


@svg_figure
def funnel_figure(report: dict[str, Any]) -> Figure | None:
    """A bar per step of RAP's selection: samples that remain, those that DRM adds in green."""
    if report["funnel"] is None:
        return None
    rows = table("funnel", report["funnel"])[1:]
    figure, axes = new_figure(8.6, 0.5 + 0.42 * len(rows))
    pool = max(report["funnel"]["pool"], 1)
    for y, (_, *counts, note) in enumerate(rows):
        remaining, added = map(int, counts)
        axes.barh(y, pool, height=0.66, color=RULE, alpha=0.55)
        axes.barh(y, remaining - added, height=0.66, color=STRATUM_COLORS["medium"])
        axes.barh(y, added, left=remaining - added, height=0.66, color=ARM_COLORS["tuned"])
        is_inside = remaining > 0.12 * pool
        x = remaining - 0.01 * pool if is_inside else remaining + 0.01 * pool
        axes.text(x, y, f"{remaining:,}", ha="right" if is_inside else "left", va="center",
                  fontweight="bold", color="white" if is_inside else INK)  # fmt: skip
        axes.text(1.015 * pool, y, note, va="center", color=FAINT, fontsize=8.5)
    name_rows(axes, range(len(rows)), [row[0] for row in rows])
    axes.set_xticks([])
    axes.set_xlim(0, 1.62 * pool)  # leaves room for the notes
    axes.spines["bottom"].set_visible(False)
    return figure
