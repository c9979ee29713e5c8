"""Pictures of training and of what came of it: reward, zero-variance groups, benchmark scores.

Each function gives the address of an inline SVG, or None where the run has nothing to show.
"""

# pandas' stubs make a union of every chain of attributes, so these say nothing here:
# pyright: reportArgumentType=false, reportReturnType=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftrain.report.plots import picture
from difftrain.report.style import ARM_COLOURS, ARM_MARKERS, INK, blank, percent_axis

PANELS = {
    "reward": "mean reward",
    "frac_reward_zero_std": "zero-variance groups: all completions of a prompt rewarded alike",
    "completions/mean_length": "mean response length, tokens",
}
SHARES = ("frac_reward_zero_std",)


def smooth(values: pd.Series) -> pd.Series:
    """Mean over a centred window of a tenth of the run; the raw values stay visible behind it."""
    return values.rolling(max(3, len(values) // 10), center=True, min_periods=1).mean()


@picture
def training(logs: dict[str, pd.DataFrame]) -> Figure | None:
    """Reward, zero-variance groups and response length of each arm by optimizer step."""
    panels = [
        name
        for name in PANELS
        if any(name in log and log[name].notna().any() for log in logs.values())
    ]
    if not panels:
        return None
    figure, grid = blank(8.6, 0.5 + 1.75 * len(panels), len(panels), 1, sharex=True)
    for axes, name in zip(grid[:, 0], panels, strict=True):
        for arm, log in logs.items():
            if name in log:
                curve(axes, log, name, arm)
        axes.set_title(PANELS[name])
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        if name in SHARES:
            percent_axis(axes, top=1.03)
    grid[-1, 0].set_xlabel("optimizer step")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return figure


def curve(axes: Axes, log: pd.DataFrame, name: str, arm: str) -> None:
    """One arm's values, pale, and their running mean."""
    known = log.dropna(subset=[name])
    axes.plot(known["step"], known[name], color=ARM_COLOURS[arm], alpha=0.22, linewidth=0.9)
    axes.plot(known["step"], smooth(known[name]), color=ARM_COLOURS[arm], linewidth=1.8, label=arm)


@picture
def benchmarks(report: dict[str, Any], arms: list[str]) -> Figure | None:
    """Scores as dots with 95 % intervals, one line a benchmark and checkpoint, the mean below."""
    names = [*report["base"], "mean"]
    figure, grid = blank(8.6, 0.8 + 0.42 * len(names))
    axes = grid[0, 0]
    place = np.arange(len(names), dtype=float)
    place[-1] += 0.35
    for number, arm in enumerate(arms):
        marks = [*(report[arm][name] for name in names[:-1]), report["means"][arm]]
        known = [
            (at, mark) for at, mark in zip(place, marks, strict=True) if mark["score"] is not None
        ]
        at = np.array([at for at, _ in known]) + (number - (len(arms) - 1) / 2) * 0.22
        axes.hlines(at, [mark["low"] for _, mark in known], [mark["high"] for _, mark in known],
                    color=ARM_COLOURS[arm], linewidth=1.6, alpha=0.55)  # fmt: skip
        axes.plot([mark["score"] for _, mark in known], at, ARM_MARKERS[arm], label=arm,
                  color=ARM_COLOURS[arm], markersize=5.5, clip_on=False)  # fmt: skip
    axes.set_yticks(place, names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.axhline(len(names) - 1.33, color="#a9acb1", linewidth=0.8)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    percent_axis(axes, "x")
    axes.set_xlim(0, 1)
    figure.legend(loc="outside upper left", ncols=3)
    return figure
