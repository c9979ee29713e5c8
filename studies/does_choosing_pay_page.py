"""The page of does_choosing_pay.py: power calculation, comparisons, table, figure."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import does_choosing_pay_reasons as reasons
import matplotlib as mpl
import numpy as np
from does_choosing_pay_rows import (
    ARMS,
    EQUAL_STEPS,
    MAIN,
    NUM_SEEDS,
    STRATA,
    TWO_STAGE,
    ArmRun,
    live_groups,
    mean_curve,
    of_arm,
    paired,
)
from scipy import stats as scipy_stats

from difftrain import stats
from difftrain.pipeline import manifest
from difftrain.report.plots import NO_METADATA, STYLE_FILE, new_figure

PAIRS = (
    ("mid+hard", "random"),
    ("mid+hard", "full"),
    ("hard", "random"),
    ("mid+hard", TWO_STAGE[0]),
    ("mid+hard", TWO_STAGE[1]),
)
"""The compared arms, first minus second. Holm's correction covers all of these pairs."""
COLORS = {"mid+hard": "#0b8068", "random": "#b5649b", "full": "#2f78b4", "hard": "#d1542b",
          TWO_STAGE[0]: "#8a6d1b", TWO_STAGE[1]: "#c49a1a", "unsolved": "#555a60",
          "RAP": "#6a51a3", "CMAB mid+hard": "#2aa6b8"}  # fmt: skip
WANTED_SHARE = 0.5  # of the full pool's tokens, with which mid+hard was to reach its score
WANTED_POINTS = 2.0  # the difference that the number of seeds must be able to show
REPORT_FOLDER = Path(__file__).resolve().parent.parent / "difftrain" / "report" / "study"
TEXT_FILE = Path(__file__).with_name("does_choosing_pay_reading.md")


@dataclass(frozen=True, slots=True)
class Power:
    """How many seeds show a difference of WANTED_POINTS, from the pilot's paired differences."""

    differences: tuple[float, ...]  # mid+hard minus random of each pilot seed, in points
    deviation: float | None  # None, as `seeds`, if fewer than two pilot seeds have been run
    seeds: int | None

    def sentence(self) -> str:
        """The calculation in one sentence."""
        if self.deviation is None:
            return "Power: the pilot has not been run"
        differences = ", ".join(f"{value:+.1f}" for value in self.differences)
        return (
            f"Power: mid+hard minus random was {differences} points with the pilot seeds, standard "
            f"deviation {self.deviation:.2f}; a difference of {WANTED_POINTS:g} points needs "
            f"{self.seeds} seeds (paired t-test, two-sided 0.05, power 0.8)"
        )


def power(pilot: Sequence[ArmRun]) -> Power:
    """The smallest number of seeds, at least 8, with a power of 0.8 for WANTED_POINTS."""
    by_seed = paired(pilot, "mid+hard", "random")
    values = tuple(a.at_equal_steps.mean - b.at_equal_steps.mean for a, b in by_seed)
    if len(values) < 2:
        return Power(values, None, None)
    deviation = stdev(values)
    count = 8
    while _power(count, deviation) < 0.8:
        count += 1
    return Power(values, deviation, count)


def _power(num_seeds: int, deviation: float) -> float:
    """Power of the paired t-test with this many seeds."""
    if deviation == 0:
        return 1.0
    freedom = num_seeds - 1
    limit = float(scipy_stats.t.ppf(0.975, freedom))
    shift = WANTED_POINTS / deviation * num_seeds**0.5
    return float(scipy_stats.nct.sf(limit, freedom, shift))


def cluster_of(benchmark: str, item_id: str) -> str:
    """The group that the bootstrap resamples together: HallusionBench's two questions on a figure,
    which follow each other; else the item."""
    return str(int(item_id) // 2) if benchmark.endswith("HallusionBench") else item_id


def tokens_to_full_score(runs: Sequence[ArmRun]) -> float | None:
    """Tokens, probe included, at which mid+hard's mean curve first has the full pool's last score,
    as a share of the full pool's tokens, over their common seeds. None if it never has it."""
    pairs = paired(runs, "mid+hard", "full")
    return _tokens_to_last_score([a for a, _ in pairs], [b for _, b in pairs])


def tokens_to_chosen_score(runs: Sequence[ArmRun]) -> float | None:
    """The reverse: tokens at which the full pool's mean curve first has mid+hard's last score, as a
    share of mid+hard's tokens with its probe. None if it never has it."""
    pairs = paired(runs, "mid+hard", "full")
    return _tokens_to_last_score([b for _, b in pairs], [a for a, _ in pairs])


def _tokens_to_last_score(runs: Sequence[ArmRun], others: Sequence[ArmRun]) -> float | None:
    if not runs:
        return None
    _, tokens, scores, _ = mean_curve(runs)
    _, other_tokens, other_scores, _ = mean_curve(others)
    goal = other_scores[-1]
    for (t0, s0), (t1, s1) in pairwise(zip(tokens, scores, strict=True)):
        if s1 >= goal:
            reached = t1 if s1 == s0 else t0 + (t1 - t0) * max(goal - s0, 0) / (s1 - s0)
            return float(reached / other_tokens[-1])
    return None


def score_at_tokens(run: ArmRun, tokens: float) -> float:
    """A run's score at a number of generated tokens, linear between two evaluations."""
    xs, ys = zip(*((point.tokens, point.mean) for point in run.points), strict=True)
    return float(np.interp(tokens, xs, ys))


def equal_tokens(runs: Sequence[ArmRun], first: str, second: str) -> dict[str, float] | None:
    """The difference in points where the arm with fewer generated tokens ends, with the interval of
    Student's t over seeds."""
    pairs = paired(runs, first, second)
    if len(pairs) < 2:
        return None
    values, ends = [], []
    for a, b in pairs:
        ends.append(min(a.points[-1].tokens, b.points[-1].tokens))
        values.append(score_at_tokens(a, ends[-1]) - score_at_tokens(b, ends[-1]))
    half = float(scipy_stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return {
        "mean": mean(values),
        "low": mean(values) - half,
        "high": mean(values) + half,
        "seeds": len(values),
        "tokens": mean(ends),
    }


def draw_figure(runs: Sequence[ArmRun], path: Path) -> None:
    """Score against optimizer steps, live groups and generated tokens, one line per arm."""
    with mpl.rc_context(fname=STYLE_FILE):
        figure, axes = new_figure(10.0, 3.8, 1, 3, sharey=True)
        for arm in ARMS:
            if not (arm_runs := of_arm(runs, arm)):
                continue
            is_main = arm in MAIN
            steps, tokens, scores, half = mean_curve(arm_runs)
            groups = np.mean([live_groups(run) for run in arm_runs], axis=0)
            steps = np.where(steps > 0, steps + arm_runs[0].sft_steps, 0)
            style = {"color": COLORS[arm], "linewidth": 1.5 if is_main else 0.8}
            for panel, xs in zip(axes, (steps, groups, tokens / 1000), strict=True):
                panel.plot(xs, scores, label=f"{arm} ({len(arm_runs)})", **style)
                if is_main:
                    low, high = scores - half, scores + half
                    panel.fill_between(xs, low, high, color=COLORS[arm], alpha=0.15, linewidth=0)
        axes[0].set_xlabel("optimizer steps")
        axes[1].set_xlabel("groups whose rewards differ")
        axes[2].set_xlabel("thousand tokens, with the probe's")
        axes[0].set_ylabel("mean of six benchmarks")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5)
        figure.savefig(path, metadata=NO_METADATA)


def differences(
    runs: Sequence[ArmRun], planned: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, float]]:
    """The paired differences at equal steps, in points of 100, of pairs with two seeds or more.

    `low` and `high` are corrected over all planned pairs (Bonferroni), as is `p` (Holm; a pair
    without results counts as p = 1); `low_95` and `high_95` are not. `detectable` is the true
    difference that such runs would show four times in five, in normal approximation.
    """
    rows, p_values = {}, dict.fromkeys(planned, 1.0)
    for pair in planned:
        pairs = paired(runs, *pair)
        if len(pairs) < 2:
            continue
        before = [b.at_equal_steps.results() for _, b in pairs]
        after = [a.at_equal_steps.results() for a, _ in pairs]
        tables = stats.difference_tables(before, after, cluster_of)
        level = 1 - 0.05 / len(planned)
        wide = stats.pool(tables, "paired", level=level)[stats.MEAN]
        narrow = stats.pool(tables, "paired")[stats.MEAN]
        assert wide.p is not None, "a difference has a p"
        p_values[pair] = wide.p
        rows[pair] = {
            name: 100 * value
            for name, value in [
                *((name, wide.to_json()[name]) for name in ("mean", "low", "high")),
                *((f"{name}_95", narrow.to_json()[name]) for name in ("low", "high")),
            ]
        } | {"seeds": len(pairs)}
        quantile, reserve = scipy_stats.norm.ppf([(1 + level) / 2, 0.8])
        half_width = (rows[pair]["high"] - rows[pair]["low"]) / 2
        rows[pair]["detectable"] = half_width * float(1 + reserve / quantile)
    corrected = dict(zip(planned, stats.holm(list(p_values.values())), strict=True))
    return {pair: row | {"p": corrected[pair]} for pair, row in rows.items()}


def summary(runs: Sequence[ArmRun], calculation: Power) -> dict[str, Any]:
    """The content of does_choosing_pay.json."""
    by_steps = {" - ".join(pair): row for pair, row in differences(runs, PAIRS).items()}
    by_tokens = {f"{a} - {b}": equal_tokens(runs, a, b) for a, b in PAIRS[:2]}
    return {
        "seeds": sorted({run.seed for run in of_arm(runs, "mid+hard")}),
        "mid_hard_minus_random": by_steps.get("mid+hard - random"),
        "tokens_to_full_score": tokens_to_full_score(runs),
        "differences_at_equal_steps": by_steps,
        "differences_at_equal_tokens": by_tokens,
        "power": asdict(calculation),
        "arms": {arm: arm_summary(of_arm(runs, arm)) for arm in ARMS if of_arm(runs, arm)},
        "versions": runs[0].versions if runs else manifest.versions(),
    }


def arm_summary(runs: Sequence[ArmRun]) -> dict[str, Any]:
    """One arm over its seeds: means, and the scores of each seed."""
    finals = [run.at_equal_steps.mean for run in runs]
    return {
        "seeds": [run.seed for run in runs],
        "base": mean(run.points[0].mean for run in runs),
        "score": mean(finals),
        "scores": finals,
        "samples": mean(run.selected for run in runs),
        "live_groups": mean(mean(run.live_share[:EQUAL_STEPS]) for run in runs),
        "grad_norm": mean(mean(run.grad_norm[:EQUAL_STEPS]) for run in runs),
        "tokens": mean(run.at_equal_steps.tokens for run in runs),
        "probe_tokens": mean(run.probe_tokens for run in runs),
    }


def table(content: dict[str, Any]) -> list[str]:
    """The arms' rows as Markdown."""
    lines = [
        "| arm | seeds | samples | live groups | gradient norm | tokens (of the probe) | base | "
        f"after {EQUAL_STEPS} steps | minus base |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for arm, row in content["arms"].items():
        lines.append(
            f"| {arm} | {len(row['seeds'])} | {row['samples']:.0f} | {row['live_groups']:.0%} | "
            f"{row['grad_norm']:.2f} | {row['tokens'] / 1000:.0f}k "
            f"({row['probe_tokens'] / 1000:.0f}k) | {row['base']:.1f} | {row['score']:.1f} | "
            f"{row['score'] - row['base']:+.1f} |"
        )
    return lines


def interval(row: dict[str, float]) -> str:
    """A difference as `+2.1 [0.4, 3.8]`."""
    mean, low, high = (round(row[name], 1) + 0.0 for name in ("mean", "low", "high"))  # no -0.0
    return f"{mean:+.1f} [{low:.1f}, {high:.1f}]"


def sentences(runs: Sequence[ArmRun], content: dict[str, Any]) -> list[str]:
    """The result in three sentences, for the README and for reports on the shapes world."""
    against = {
        arm: difference_text(
            content["differences_at_equal_steps"].get(f"mid+hard - {arm}"), NUM_SEEDS[arm]
        )
        for arm in ("random", "full", *TWO_STAGE)
    }
    return [
        f"After {EQUAL_STEPS} optimizer steps, GRPO on medium and hard samples scores "
        f"{against['random']} against as many random samples, and {against['full']} against all "
        "samples.",
        full_score_text(runs, content),
        f"After equal steps it scores {against[TWO_STAGE[0]]} against SFT on the medium and GRPO "
        f"on the hard samples, and {against[TWO_STAGE[1]]} against SFT on the hard and GRPO on "
        "the medium ones.",
    ]


def difference_text(row: dict[str, float] | None, planned: int) -> str:
    """A difference at equal steps with its corrected interval, its seeds and the verdict."""
    if row is None:
        return "(not compared yet)"
    seeds = f"{row['seeds']} seeds"
    if row["seeds"] < planned:
        seeds = f"{row['seeds']} of {planned} planned seeds"
    verdict = "no difference shown"
    if is_shown(row):
        verdict = "better" if row["mean"] > 0 else "worse"
    return f"{interval(row)} points ({seeds}; {verdict})"


def is_shown(row: dict[str, float]) -> bool:
    """Whether both the corrected p and the corrected interval say that there is a difference."""
    return row["p"] < 0.05 and not row["low"] <= 0 <= row["high"]


def wanted_text(content: dict[str, Any]) -> str:
    """Which of the two results that the plan wanted came out."""
    row = content["differences_at_equal_steps"].get("mid+hard - random")
    share = content["tokens_to_full_score"]
    above = row is not None and is_shown(row) and row["mean"] > 0
    few = share is not None and share <= WANTED_SHARE
    reached = "never has it" if share is None else f"has it with {share:.2f} of them"
    return (
        f"The plan wanted two results. Mid+hard above random at equal steps, after correction: "
        f"{'shown' if above else 'not shown'}. The full pool's last score with at most "
        f"{WANTED_SHARE:g} of its tokens: {'met' if few else 'not met'} (mid+hard "
        f"{reached})."
    )


def write(
    folder: Path,
    runs: Sequence[ArmRun],
    calculation: Power,
    report_folder: Path | None = None,
    left_out: Sequence[str] = (),
) -> Path:
    """Write does_choosing_pay.md, .json and .svg; returns the Markdown page.

    `left_out` names the runs whose selection was too small for one step. The sentences and the
    figure also go to `report_folder`, for the package's reports.
    """
    content = summary(runs, calculation)
    result = sentences(runs, content)
    manifest.write_json(folder / "does_choosing_pay.json", content)
    draw_figure(runs, folder / "does_choosing_pay.svg")
    pools = [run.strata for run in of_arm(runs, "mid+hard")]
    strata = {name: mean(pool.get(name, 0) for pool in pools) for name in STRATA}
    lines = [
        "# Does choosing pay, where most of a pool brings no gradient?",
        "",
        "`python studies/does_choosing_pay.py`; the [plan](../does_choosing_pay_plan.md) was "
        "committed before these runs.",
        "",
        "Strata of a pool by PISM, mean over seeds: "
        + ", ".join(f"{name} {count:.0f}" for name, count in strata.items())
        + ". By construction the model masters 27 %, answers 19 % in a part of its responses, and "
        "cannot answer 54 %.",
        "",
        calculation.sentence() + ".",
        "",
        " ".join(result)
        + " Intervals of differences at equal steps are of 99 %, corrected over the "
        "five planned pairs.",
        "",
        wanted_text(content),
        "",
        f"Finished runs: {finished_text(runs, left_out)}.",
        "",
        "![score against steps, live groups and tokens](does_choosing_pay.svg)",
        "",
        "Each line is the mean over the arm's own seeds (their number in brackets); bands: 95 % "
        "over seeds, for the four main arms. On the right, arms that need the probe start at its "
        "tokens. The first part of the two SFT lines holds the 40 steps of SFT.",
        "",
        *table(content),
        "",
        "A group is live if its rewards differ. Scores are means of the six shapes/ benchmarks in "
        "points of 100. Rows are means over different numbers of seeds, and each seed has a pool "
        "of its own: compare arms by the differences below, which are of common seeds.",
        "",
        f"| difference at equal steps | seeds | points, {1 - 0.05 / len(PAIRS):.0%} interval | "
        "p, corrected | 95 % interval | could be shown |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {name} | {row['seeds']} | {interval(row)} | {row['p']:.3f} | "
            f"[{row['low_95']:.1f}, {row['high_95']:.1f}] | {row['detectable']:.1f} |"
            for name, row in content["differences_at_equal_steps"].items()
        ),
        "",
        f"Intervals are corrected over the {len(PAIRS)} planned pairs (Bonferroni), p too (Holm). "
        "A pair needs two seeds. *Could be shown*: how large a true difference must be for four of "
        "five such studies to show it. Unlike the power calculation above, this counts the "
        "correction and the variance of the benchmarks' items, which more seeds do not reduce.",
        "",
        "| difference at equal tokens | seeds | tokens | points, 95 % interval, not corrected |",
        "|---|--:|--:|--:|",
        *(
            f"| {name} | {row['seeds']:.0f} | {row['tokens'] / 1000:.0f}k | {interval(row)} |"
            for name, row in content["differences_at_equal_tokens"].items()
            if row
        ),
        "",
        "| seed | " + " | ".join(content["arms"]) + " |",
        "|--:|" + "--:|" * len(content["arms"]),
        *seed_rows(runs, list(content["arms"])),
        "",
        *reasons.lines(runs),
        "",
        *([TEXT_FILE.read_text().rstrip(), ""] if TEXT_FILE.exists() else []),
    ]
    path = folder / "does_choosing_pay.md"
    manifest.write_text(path, "\n".join(lines))
    if report_folder is not None:
        manifest.write_text(report_folder / "study.txt", "\n".join(result) + "\n")
        shutil.copy(folder / "does_choosing_pay.svg", report_folder / "study.svg")
    return path


def full_score_text(runs: Sequence[ArmRun], content: dict[str, Any]) -> str:
    """mid+hard against the full pool at equal tokens, and whether it reaches its last score."""
    pairs = paired(runs, "mid+hard", "full")
    if not pairs:
        return "Tokens are not compared yet: there is no run on all samples."
    longest = max(point.step for _, full in pairs for point in full.points)
    row = content["differences_at_equal_tokens"]["mid+hard - full"]
    difference = f"{interval(row)} points (95 %, {row['seeds']} seeds)" if row else "(one seed)"
    share, back = content["tokens_to_full_score"], tokens_to_chosen_score(runs)
    goal = f"the score of all samples after {longest} steps"
    reached = f"does not reach {goal}"
    if share is not None:
        reached = f"reaches {goal} with {share:.2f} of its tokens"
    elif back is not None:
        reached += f"; for the score at which it ends, all samples need {back:.2f} of its tokens"
    return (
        f"At equal generated tokens, the probe's included, it scores {difference} against all "
        f"samples; it {reached}."
    )


def finished_text(runs: Sequence[ArmRun], left_out: Sequence[str] = ()) -> str:
    """How many of the planned runs of each arm are finished, and which cannot be run."""
    counts = {arm: len(of_arm(runs, arm)) for arm in NUM_SEEDS}
    text = ", ".join(f"{arm} {counts[arm]} of {planned}" for arm, planned in NUM_SEEDS.items())
    if left_out:
        text += f"; without {', '.join(left_out)}, whose selection is too small for one step"
    return text


def seed_rows(runs: Sequence[ArmRun], arms: Sequence[str]) -> list[str]:
    """Each seed's scores at equal steps, one column per arm."""
    by_key = {(run.seed, run.arm): f"{run.at_equal_steps.mean:.1f}" for run in runs}
    return [
        f"| {seed} | " + " | ".join(by_key.get((seed, arm), "") for arm in arms) + " |"
        for seed in sorted({run.seed for run in runs})
    ]
