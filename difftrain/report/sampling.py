"""Which groups GRPO sampled and trained on, if its sampler or dynamic sampling chose them."""

# pandas' stubs type most expressions as wide unions, so that pyright's reports are wrong here:
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from difftrain.report.plots import ARM_COLORS, MAX_VECTOR_POINTS, new_figure, svg_figure

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
    logs: dict[str, pd.DataFrame], prompt_logs: dict[str, list[dict[str, Any]]]
) -> Figure | None:
    """Three panels: shares of zero-variance groups by step; the expected pass rate of the sampled
    prompts by step; the samples' pass rates before and after the training."""
    arms = [arm for arm, log in logs.items() if "groups_trained" in log]
    if not arms:
        return None
    figure, (shares, order, rates) = new_figure(8.6, 2.9, 1, 3)
    for arm in arms:
        log, color = logs[arm], ARM_COLORS[arm]
        window = max(3, len(log) // 10)
        for (column, title), line in zip(SHARES.items(), ("--", "-"), strict=True):
            mean = log[column].rolling(window, center=True, min_periods=1).mean()
            shares.plot(log["step"], mean, line, color=color, label=f"{arm}: {title}")
        rows = pd.DataFrame(prompt_logs.get(arm, []))
        if rows.empty:
            continue
        sampled = rows[rows["step"] > 0]
        order.plot(sampled["step"], sampled["expected"], ".", color=color, alpha=0.25, markersize=3,
                   rasterized=len(sampled) > MAX_VECTOR_POINTS)  # fmt: skip
        order.plot(sampled.groupby("step")["expected"].mean(), color=color)
        posterior = (1 + rows["correct"]) / (2 + rows["correct"] + rows["incorrect"])
        by_sample = posterior.groupby(rows["sample_id"])
        for label, values, line in (
            ("before", by_sample.first(), ":"),
            ("after", by_sample.last(), "-"),
        ):
            counts, _ = np.histogram(values, RATE_BINS)
            rates.stairs(counts, RATE_BINS, linestyle=line, color=color, label=f"{arm}: {label}")
    for axes, title in (
        (shares, "zero-variance groups"),
        (order, "pass rate of sampled prompts"),
        (rates, "samples by pass rate"),
    ):
        axes.set_title(title)
        axes.grid(axis="y")
    for axes in (shares, order):
        axes.set(ylim=(0, 1.03), xlabel="optimizer step")
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    rates.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    for axes in (shares, rates):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    return figure
