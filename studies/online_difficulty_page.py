"""The page of online_difficulty.py: comparisons with uniform sampling, table, figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
import numpy as np
from does_choosing_pay_page import (
    arm_summary,
    differences,
    equal_tokens,
    interval,
    seed_rows,
)
from does_choosing_pay_rows import EQUAL_STEPS, ArmRun, mean_curve, of_arm, read_runs
from matplotlib.ticker import PercentFormatter

from difftrain.pipeline import manifest
from difftrain.report.plots import NO_METADATA, STYLE_FILE, new_figure

CONTROL = "uniform"
COLORS = {
    CONTROL: "#6f7278",
    "offline mid+hard": "#2f78b4",
    "refill": "#0b8068",
    "learnable": "#b5649b",
    "skip_dead": "#d1542b",
    "offline + refill": "#8cc5e3",
}
"""The arms in the order of the table, with their colors."""
WINDOW = 10  # steps of the running mean in the figure
TEXT_FILE = Path(__file__).with_name("online_difficulty_reading.md")


@dataclass(frozen=True, slots=True)
class OnlineRun(ArmRun):
    """The result row of one run, with the groups of each step.

    `sampled` and `trained` are numbers of groups, `dead_*` the shares of them with equal rewards.
    """

    sampled: list[int]
    trained: list[int]
    dead_sampled: list[float]
    dead_trained: list[float]

    def to_json(self) -> dict[str, Any]:
        """The row as JSON, with three digits for the shares."""
        content = ArmRun.to_json(self)
        for name in ("dead_sampled", "dead_trained"):
            content[name] = [round(share, 3) for share in getattr(self, name)]
        return content

    def dead_share(self, kind: str) -> float | None:
        """The share of dead groups among those `sampled` or `trained` within EQUAL_STEPS; None if
        there were none."""
        groups = getattr(self, kind)[:EQUAL_STEPS]
        shares = getattr(self, f"dead_{kind}")[:EQUAL_STEPS]
        dead = sum(count * share for count, share in zip(groups, shares, strict=True))
        return dead / sum(groups) if sum(groups) else None


def read_rows(folder: Path) -> list[OnlineRun]:
    """All finished runs, by seed."""
    return read_runs(folder, OnlineRun)


PAIRS = tuple((arm, CONTROL) for arm in COLORS if arm != CONTROL)


def online_summary(runs: Sequence[OnlineRun]) -> dict[str, Any]:
    """One arm over its seeds."""
    shares = {}
    for kind in ("sampled", "trained"):
        values = [share for run in runs if (share := run.dead_share(kind)) is not None]
        shares[f"dead_{kind}"] = mean(values) if values else None
    groups = mean(sum(run.sampled[:EQUAL_STEPS]) for run in runs)
    return arm_summary(runs) | shares | {"groups_sampled": groups}


def summary(runs: Sequence[OnlineRun]) -> dict[str, Any]:
    """The content of online_difficulty.json."""
    arms = [arm for arm in COLORS if of_arm(runs, arm)]
    return {
        "seeds": sorted({run.seed for run in runs}),
        "arms": {arm: online_summary([run for run in runs if run.arm == arm]) for arm in arms},
        "minus_uniform_at_equal_steps": {
            arm: row for (arm, _), row in differences(runs, PAIRS).items()
        },
        "minus_uniform_at_equal_tokens": {
            arm: equal_tokens(runs, arm, CONTROL) for arm in arms if arm != CONTROL
        },
        "versions": runs[0].versions if runs else manifest.versions(),
    }


def draw_figure(runs: Sequence[OnlineRun], path: Path) -> None:
    """The share of zero-variance groups that are trained on, by step; score against tokens."""
    with mpl.rc_context(fname=STYLE_FILE):
        drawn, (shares, scores) = new_figure(9.0, 3.8, 1, 2)
        for arm, color in COLORS.items():
            of_this = [run for run in runs if run.arm == arm]
            if not of_this:
                continue
            dead = np.mean([run.dead_trained[:EQUAL_STEPS] for run in of_this], axis=0)
            smooth = np.convolve(dead, np.ones(WINDOW) / WINDOW, mode="valid")
            shares.plot(np.arange(len(smooth)) + WINDOW, smooth, color=color, label=arm)
            _, tokens, values, half = mean_curve(of_this)
            scores.plot(tokens / 1000, values, color=color)
            scores.fill_between(tokens / 1000, values - half, values + half, color=color,
                                alpha=0.13, linewidth=0)  # fmt: skip
        shares.set(title="zero-variance groups trained on", xlabel="optimizer step", ylim=(0, 1))
        shares.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        scores.set(title="mean of six benchmarks",
                   xlabel="generated tokens in thousands, probe included")  # fmt: skip
        drawn.legend(loc="outside upper left", ncols=6, fontsize=8)
        drawn.savefig(path, metadata=NO_METADATA)


def share_text(share: float | None) -> str:
    """A share in percent."""
    return "none" if share is None else f"{share:.0%}"


def table(content: dict[str, Any]) -> list[str]:
    """The arms' rows as Markdown."""
    lines = [
        "| arm | seeds | groups sampled | of these dead | dead of those trained on | "
        f"tokens (of the probe) | after {EQUAL_STEPS} steps | minus uniform, equal steps | "
        "p, corrected | minus uniform, equal tokens |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    by_steps = content["minus_uniform_at_equal_steps"]
    by_tokens = content["minus_uniform_at_equal_tokens"]
    for arm, row in content["arms"].items():
        steps, tokens = by_steps.get(arm), by_tokens.get(arm)
        cells = [
            *(arm, str(len(row["seeds"])), f"{row['groups_sampled']:.0f}"),
            *(share_text(row["dead_sampled"]), share_text(row["dead_trained"])),
            f"{row['tokens'] / 1000:.0f}k ({row['probe_tokens'] / 1000:.0f}k)",
            f"{row['score']:.1f}",
            *((interval(steps), f"{steps['p']:.3f}") if steps else ("", "")),
            interval(tokens) if tokens else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def expected_text(content: dict[str, Any]) -> str:
    """The plan's two expectations, and what came out."""
    uniform, refill = (
        content["arms"].get(arm, {}).get("dead_trained") for arm in (CONTROL, "refill")
    )
    if uniform is None or refill is None:
        return "Uniform and refill have not both been run."
    return (
        "The plan expected that zero-variance groups are above 60 % of what uniform trains on: "
        f"{uniform:.0%}, {'met' if uniform > 0.6 else 'not met'}; and below 10 % of what refill "
        f"trains on: {refill:.0%}, {'met' if refill < 0.1 else 'not met'}."
    )


def write(folder: Path, runs: Sequence[OnlineRun]) -> Path:
    """Write online_difficulty.md, .json and .svg; returns the Markdown page."""
    content = summary(runs)
    manifest.write_json(folder / "online_difficulty.json", content)
    draw_figure(runs, folder / "online_difficulty.svg")
    lines = [
        "# Does difficulty that follows the policy help?",
        "",
        "`python studies/online_difficulty.py`; the [plan](../online_difficulty_plan.md) was "
        "committed before the runs of the last four arms. Rows of uniform and offline mid+hard are "
        "those of [does_choosing_pay](does_choosing_pay.md), which are of the same settings.",
        "",
        expected_text(content),
        "",
        "![zero-variance groups, and score against tokens](online_difficulty.svg)",
        "",
        *table(content),
        "",
        "A group is dead (zero variance) if all its rewards are equal. Scores are means of the six "
        "shapes/ benchmarks in points of 100. Brackets at equal steps are intervals of "
        f"{1 - 0.05 / len(PAIRS):.0%}, corrected over the {len(PAIRS)} arms (Bonferroni), as is p "
        "(Holm); at equal tokens, and in the figure, they are of 95 % and not corrected. Tokens "
        "are those of all rollouts, refused groups included, and for arms that need it of the "
        "probe. At equal tokens two arms are compared where the one with fewer tokens ends.",
        "",
        "| seed | " + " | ".join(content["arms"]) + " |",
        "|--:|" + "--:|" * len(content["arms"]),
        *seed_rows(runs, list(content["arms"])),
        "",
        *([TEXT_FILE.read_text().rstrip(), ""] if TEXT_FILE.exists() else []),
    ]
    path = folder / "online_difficulty.md"
    manifest.write_text(path, "\n".join(lines))
    return path
