"""How samples move between strata from round to round: the numbers and the figure.

Each round after the first scores all samples again, with the model that the round before trained.
"""

# pandas' stubs type most expressions as wide unions, so that pyright's reports are wrong here:
# pyright: reportArgumentType=false

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from difftrain.records import Stratum
from difftrain.report.inputs import RunData, RunInputs
from difftrain.report.plots import INK, STRATUM_COLORS, new_figure, svg_figure

UNPLACED = "unplaced"
STRATA = (*(stratum.value for stratum in Stratum), UNPLACED)
BAR_WIDTH = 0.12  # of the distance between two rounds
GAP = 0.02  # between strata, as a share of all samples
MIN_LABEL_SHARE = 0.03  # smaller flows have no number in the figure


def labels_by_round(round_scores: list[pd.DataFrame]) -> pd.DataFrame:
    """A column of strata for each round, 1 to N, over the samples that all rounds have scored."""
    columns = {
        number: scores.set_index("sample_id")["stratum"].astype(object).fillna(UNPLACED)
        for number, scores in enumerate(round_scores, 1)
    }
    return pd.DataFrame(columns).dropna()


def moves(labels: pd.DataFrame) -> list[dict[str, Any]]:
    """For each pair of consecutive rounds: samples by stratum before and after, and how many moved.

    `counts` has {before: {after: number}} without zeros.
    """
    results = []
    for before, after in zip(labels.columns, labels.columns[1:], strict=False):
        pairs = labels.groupby([before, after]).size()
        counts: dict[str, dict[str, int]] = {}
        for a, b, number in pairs.reset_index().itertuples(index=False):
            counts.setdefault(str(a), {})[str(b)] = int(number)
        moved = int((labels[before] != labels[after]).sum())
        results.append({"from": int(before), "to": int(after), "samples": len(labels),
                        "moved": moved, "counts": counts})  # fmt: skip
    return results


def rounds_summary(inputs: RunInputs, data: RunData) -> dict[str, Any] | None:
    """What report.json says of the rounds; None if the run has one.

    `by_round` has the strata of all samples that the round scored, the selected samples and the
    training steps by arm (empty if the round could not train), and the probe's generations, tokens
    and seconds.
    """
    if inputs.settings.get("rounds", 1) == 1:
        return None
    labels, by_round = labels_by_round(data.round_scores), []
    for number, scores in enumerate(data.round_scores, 1):
        strata = scores["stratum"].astype(object).fillna(UNPLACED).value_counts()
        suffix = f", round {number}" if number > 1 else ""
        probe, selections = data.manifests[f"probe{suffix}"], data.round_selections[number - 1]
        by_round.append({
            "round": number,
            "strata": {name: int(strata[name]) for name in STRATA if name in strata},
            "picks": {arm: len(rows) for arm, rows in selections.items()},
            "steps": {
                arm: data.manifests[f"train {arm}{suffix}"]["counts"]["steps"] for arm in selections
            },
            "generations": probe["counts"]["generations"],
            "tokens": probe["counts"]["tokens"],
            "seconds": probe["seconds"],
        })  # fmt: skip
    return {
        "number": int(inputs.settings["rounds"]),
        "trained": sum(bool(selections) for selections in data.round_selections),
        "stop_reason": inputs.stop_reason,
        "by_round": by_round,
        "moves": moves(labels),
    }


@svg_figure
def strata_flow(round_scores: list[pd.DataFrame]) -> Figure | None:
    """Rounds from left to right; a bar per stratum, and between rounds a band per flow of samples.

    A band has the color of the stratum that its samples leave.
    """
    labels = labels_by_round(round_scores)
    if len(labels.columns) < 2 or labels.empty:
        return None
    figure, axes = new_figure(8.6, 3.6)
    present = [name for name in STRATA if (labels == name).any(axis=None)]
    sizes = {number: labels[number].value_counts() / len(labels) for number in labels.columns}
    tops = {number: _tops(sizes[number], present) for number in labels.columns}
    for pair in moves(labels):
        _draw_bands(axes, pair, tops, present)
    for number in labels.columns:
        for name in present:
            share = float(sizes[number].get(name, 0))
            if not share:
                continue
            y = tops[number][name] - share
            axes.bar(number, share, BAR_WIDTH, bottom=y, color=STRATUM_COLORS[name], zorder=3)
            count = round(share * len(labels))
            side = 1 if number == labels.columns[-1] else -1
            x = number + side * (BAR_WIDTH / 2 + 0.02)
            axes.text(x, y + share / 2, f"{name} {count:,}", va="center", color=INK, fontsize=8.5,
                      ha="left" if side == 1 else "right", zorder=4)  # fmt: skip
    axes.set_xticks(list(labels.columns), [f"round {number}" for number in labels.columns])
    axes.set_xlim(0.6, labels.columns[-1] + 0.4)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    return figure


def _tops(shares: pd.Series, present: list[str]) -> dict[str, float]:
    """The upper edge of each stratum's bar in a round; easy is at the top."""
    tops, y = {}, 1 + GAP * (len(present) - 1)
    for name in present:
        tops[name] = y
        y -= float(shares.get(name, 0)) + GAP
    return tops


def _draw_bands(
    axes: Axes, pair: dict[str, Any], tops: dict[int, dict[str, float]], present: list[str]
) -> None:
    """Draw the flows between two rounds, from the top down on both sides."""
    left, right = dict(tops[pair["from"]]), dict(tops[pair["to"]])
    t = np.linspace(0, 1, 40)
    ease = t * t * (3 - 2 * t)  # leaves and reaches the bars horizontally
    x = pair["from"] + BAR_WIDTH / 2 + t * (1 - BAR_WIDTH)
    for before in present:
        for after in present:
            count = pair["counts"].get(before, {}).get(after, 0)
            if not count:
                continue
            share = count / pair["samples"]
            top = left[before] + (right[after] - left[before]) * ease
            axes.fill_between(x, top - share, top, color=STRATUM_COLORS[before], alpha=0.38,
                              linewidth=0)  # fmt: skip
            if before != after and share >= MIN_LABEL_SHARE:
                axes.text(x[14], top[14] - share / 2, f"{count:,}", va="center", ha="center",
                          fontsize=8, color=INK)  # fmt: skip
            left[before] -= share
            right[after] -= share
