"""Which groups GRPO sampled and trained on, if its sampler or dynamic sampling chose them."""

# pandas' stubs type most expressions as wide unions, so that pyright's reports are wrong here:
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from difftrain.report.inputs import by_round
from difftrain.report.plots import ARM_COLORS, MAX_VECTOR_POINTS, mark_rounds, svg_figure

SHARES = {"zero_variance_asked": "sampled", "zero_variance_trained": "trained on"}
RATE_BINS = np.linspace(0, 1, 11)


def summarize_groups(log: pd.DataFrame) -> dict[str, float] | None:
    """The numbers of groups, and the shares of zero variance among them over all steps; None if the
    training took its groups as they came."""
    if "groups_trained" not in log:
        return None
    sampled, trained = log["groups_asked"], log["groups_trained"]

    return {
        "sampled": float(sampled.sum()),
        "trained": float(trained.sum()),
        "carried": float(log["groups_carried"].sum()),
        "zero_variance_asked": float((log["zero_variance_asked"] * sampled).sum() / sampled.sum()),
        "zero_variance_trained": float(
            (log["zero_variance_trained"] * trained).sum() / trained.sum()
        ),
    }


@svg_figure
def sampling_figure(
    logs: dict[str, pd.DataFrame], prompt_logs: dict[str, list[list[dict[str, Any]]]]
) -> Figure | None:
    """Panels: shares of zero-variance groups by step; the expected pass rate of the sampled prompts
    by step; in each round, the selected samples' pass rates before and after its training.

    `logs` are joined over the rounds; `prompt_logs` has by arm the rows of each round.
    """
    arms = [arm for arm, log in logs.items() if "groups_trained" in log]
    if not arms:
        return None
    rounds_by_arm = {arm: by_round(logs[arm]) for arm in arms}
    num_rounds = len(rounds_by_arm[arms[0]])
    height = 2.9 if num_rounds == 1 else 5.4  # with several rounds, theirs are a second line
    figure = Figure(figsize=(8.6, height), layout="constrained")
    if num_rounds == 1:
        shares, order, *rates_by_round = figure.subplots(1, 3)
    else:
        top, bottom = np.ravel(figure.subfigures(2, 1))
        shares, order = top.subplots(1, 2)
        rates_by_round = bottom.subplots(1, num_rounds, sharey=True)
    for arm in arms:
        for number, (log, rates) in enumerate(zip(rounds_by_arm[arm], rates_by_round, strict=True)):
            name = "" if number else f"{arm}: "  # a label for the first round only
            draw_shares(shares, log, ARM_COLORS[arm], name)
            by_arm = prompt_logs.get(arm, [])
            rows = pd.DataFrame(by_arm[number] if number < len(by_arm) else [])
            if not rows.empty:
                rows["step"] = rows["step"].where(
                    rows["step"] == 0, rows["step"] + log["step"].iloc[0] - 1
                )
                draw_prompts(order, rows, ARM_COLORS[arm])
                draw_pass_rates(rates, rows, ARM_COLORS[arm], arm)
    for number, rates in enumerate(rates_by_round, 1):
        suffix = f", round {number}" if num_rounds > 1 else ""
        rates.set_title(f"samples by pass rate{suffix}")
        rates.set_xticks([0, 0.5, 1])
        rates.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    shares.set_title("zero-variance groups")
    order.set_title("pass rate of sampled prompts")
    for axes in (shares, order):
        mark_rounds(axes, {arm: logs[arm] for arm in arms})
        axes.set(ylim=(0, 1.03), xlabel="optimizer step")
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    for axes in (shares, order, *rates_by_round):
        axes.grid(axis="y")
    for axes in (shares, *rates_by_round):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    return figure


def draw_shares(axes: Axes, log: pd.DataFrame, color: str, name: str) -> None:
    """Running means of the shares of zero-variance groups, sampled and trained on."""
    window = max(3, len(log) // 10)
    for (column, title), line in zip(SHARES.items(), ("--", "-"), strict=True):
        mean = log[column].rolling(window, center=True, min_periods=1).mean()
        axes.plot(log["step"], mean, line, color=color, label=name and name + title)


def draw_prompts(axes: Axes, rows: pd.DataFrame, color: str) -> None:
    """A dot per sampled prompt at its expected pass rate, and the mean of each step."""
    sampled = rows[rows["step"] > 0]
    axes.plot(sampled["step"], sampled["expected"], ".", color=color, alpha=0.25, markersize=3,
              rasterized=len(sampled) > MAX_VECTOR_POINTS)  # fmt: skip
    axes.plot(sampled.groupby("step")["expected"].mean(), color=color)


def draw_pass_rates(axes: Axes, rows: pd.DataFrame, color: str, arm: str) -> None:
    """The samples by posterior pass rate, before and after the training."""
    posterior = (1 + rows["correct"]) / (2 + rows["correct"] + rows["incorrect"])
    by_sample = posterior.groupby(rows["sample_id"])
    for label, values, line in (
        ("before", by_sample.first(), ":"),
        ("after", by_sample.last(), "-"),
    ):
        counts, _ = np.histogram(values, RATE_BINS)
        axes.stairs(counts, RATE_BINS, linestyle=line, color=color, label=f"{arm}: {label}")
