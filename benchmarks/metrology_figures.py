"""The figures of metrology.py, as SVG files that need nothing else and read on any background."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from metrology_truth import GROUPS, MASKS, TITLES, Figure

from difftrain.report.plots import (
    FAINT,
    INK,
    NO_METADATA,
    STRATUM_COLORS,
    STYLE,
    new_figure,
    percent_axis,
)

SIDES = (("all", "#2f78b4", 0.14, "o"), ("solved", "#d1542b", -0.14, "D"))
TRUTH_COLOURS = {"needs the picture": "#2f78b4", "prior": "#d1542b", "noise": "#55585e"}
KIND_LINES = {"pixels": "-", "rectangle": "--", "patches": ":"}


def save(figure: Picture, path: Path) -> None:
    """Write the figure on white, the same bytes for the same numbers."""
    figure.savefig(path, format="svg", facecolor="white", metadata=NO_METADATA)


def separations(found: dict[str, dict[str, Figure]], path: Path) -> None:
    """AUC of each measure with its interval, over all samples and over solved ones."""
    with mpl.rc_context(STYLE):
        names = list(reversed(found))
        figure, grid = new_figure(7.6, 0.9 + 0.42 * len(names))
        axes: Axes = grid[0, 0]
        axes.axvline(0.5, color=FAINT, linewidth=0.9, linestyle=(0, (3, 3)))
        for kind, colour, shift, marker in SIDES:
            value = np.array([found[name][kind].value for name in names])
            low = value - np.array([found[name][kind].low for name in names])
            high = np.array([found[name][kind].high for name in names]) - value
            label = (
                "all samples" if kind == "all" else "only samples the model solves at least once"
            )
            axes.errorbar(
                value, np.arange(len(names)) + shift, xerr=[low, high], fmt=marker, color=colour,
                markersize=5, elinewidth=1.4, label=label, clip_on=False,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), [TITLES[name] for name in names], color=INK)
        axes.set_xlim(0, 1)
        axes.set_xlabel("AUC: needs the picture against prior (0.5: cannot tell), 95 % interval")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2)
        save(figure, path)


def matrix(axes: Axes, value: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Correlations as a coloured table with the figure in each cell; grey where there is none."""
    cold_to_warm = mpl.colormaps["RdBu_r"].with_extremes(bad="#eeeeee")
    axes.imshow(np.ma.masked_invalid(value), cmap=cold_to_warm, vmin=-1, vmax=1, aspect="auto")
    for (row, column), each in np.ndenumerate(value):
        text = "" if np.isnan(each) else f"{each:+.2f}"
        colour = "white" if abs(each) > 0.6 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)


def knobs(pool: dict[str, Figure], families: dict[str, dict[str, float]], path: Path) -> None:
    """Spearman with the difficulty knob: each family, and all pooled within families."""
    with mpl.rc_context(STYLE):
        names = list(pool)
        tasks = sorted({task for each in families.values() for task in each})
        value = np.array(
            [
                [*(families[name].get(task, np.nan) for task in tasks), pool[name].value]
                for name in names
            ]
        )
        figure, grid = new_figure(8.6, 1.1 + 0.36 * len(names))
        matrix(grid[0, 0], value, [TITLES[name] for name in names], [*tasks, "pooled"])
        grid[0, 0].axvline(len(tasks) - 0.5, color="white", linewidth=5)
        save(figure, path)


def agreements(
    names: Sequence[str], rho: np.ndarray, counts: dict[str, pd.DataFrame], path: Path
) -> None:
    """Rank correlations between measures, and which strata PISM and others put a sample in."""
    with mpl.rc_context(STYLE):
        titles = [TITLES[name].replace(" (pixels)", "") for name in names]
        figure, grid = new_figure(
            10.4, 3.9, 1, 1 + len(counts), width_ratios=[1.7, *[1] * len(counts)]
        )
        matrix(grid[0, 0], rho, titles, titles)
        grid[0, 0].set_title("rank correlation of the values")
        for axes, (title, table) in zip(grid[0, 1:], counts.items(), strict=True):
            axes.imshow(table.to_numpy(), cmap="Blues", aspect="auto")
            most = table.to_numpy().max()
            for (row, column), each in np.ndenumerate(table.to_numpy()):
                colour = "white" if each > 0.55 * most else INK
                axes.text(column, row, str(each), ha="center", va="center", color=colour)
            axes.set_xticks(
                range(4), table.columns, rotation=35, ha="right", rotation_mode="anchor"
            )
            axes.set_yticks(range(4), table.index if axes is grid[0, 1] else [""] * 4)
            axes.tick_params(length=0, labelcolor=INK)
            axes.spines[:].set_visible(False)
            axes.set_title(f"PISM down, {title.removeprefix('PISM, ')} across")
        save(figure, path)


def by_answers(frame: pd.DataFrame, path: Path) -> None:
    """Strata by the number of possible answers, as the paper has PISM and chance-aware."""
    with mpl.rc_context(STYLE):
        asked = frame[frame["truth"] == "needs the picture"]
        groups = [name for name in GROUPS if (asked["group"] == name).any()]
        figure, grid = new_figure(8.2, 0.8 + 0.62 * len(groups))
        axes: Axes = grid[0, 0]
        labels, places = [], []
        for number, group in enumerate(groups):
            own = asked[asked["group"] == group]
            for shift, name in ((-0.2, "pism"), (0.2, "pism_chance")):
                start, place = 0.0, number + shift
                places.append(place)
                labels.append(f"{group} answers ({len(own)})" if shift < 0 else "chance-aware")
                for stratum in ("easy", "medium", "hard", "unsolved"):
                    size = int((own[f"{name}_stratum"] == stratum).sum())
                    bar = axes.barh(place, size / len(own), left=start, height=0.36,
                                    color=STRATUM_COLORS[stratum], edgecolor="white",
                                    label=None if number or shift > 0 else stratum)  # fmt: skip
                    light = INK if stratum == "easy" else "white"
                    text = str(size) if size / len(own) > 0.03 else ""
                    axes.bar_label(bar, [text], label_type="center", fontsize=8, color=light)
                    start += size / len(own)
        axes.set_yticks(places, labels, color=INK)
        axes.invert_yaxis()
        percent_axis(axes, "x")
        axes.set_xlim(0, 1)
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=4, handlelength=1, handleheight=1)
        save(figure, path)


def survival(frame: pd.DataFrame, ratios: Sequence[float], path: Path) -> None:
    """How many samples of each truth survive each mask kind, along the ladder."""
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(7.6, 3.3)
        axes: Axes = grid[0, 0]
        for truth, colour in TRUTH_COLOURS.items():
            own = frame[frame["truth"] == truth]
            for name, kind in MASKS.items():
                share = [float((own[name] > ratio + 1e-9).mean()) for ratio in ratios]
                axes.plot(ratios, share, color=colour, linestyle=KIND_LINES[kind], linewidth=1.6,
                          label=f"{truth}, {kind}")  # fmt: skip
        percent_axis(axes, top=1.02)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_xlabel("share of the picture that is hidden")
        axes.set_ylabel("samples still right once in ten")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        save(figure, path)


def write(result: dict[str, Any], frame: pd.DataFrame, folder: Path) -> None:
    """All figures, beside the page."""
    folder.mkdir(parents=True, exist_ok=True)
    separations(result["separation"], folder / "metrology_separation.svg")
    knobs(result["knob"], result["knob_by_family"], folder / "metrology_knob.svg")
    agreements(
        result["agreeing"], result["rho"], result["confusion"], folder / "metrology_agreement.svg"
    )
    by_answers(frame, folder / "metrology_answers.svg")
    survival(frame, result["ratios"], folder / "metrology_masks.svg")
