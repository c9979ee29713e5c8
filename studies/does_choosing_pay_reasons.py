"""Why the arms of does_choosing_pay.py differ: live groups, forgetting, speed, and what is left.

Everything is computed from the result rows, except the strata of live groups, which
does_choosing_pay_strata.py counts. These tables describe; they were not
planned, and nothing in them is tested.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from does_choosing_pay_rows import (
    ARMS,
    EQUAL_STEPS,
    MAIN,
    PROMPTS_PER_STEP,
    STRATA,
    ArmRun,
    CurvePoint,
    of_arm,
    paired,
)

WINDOW = 20  # steps at the beginning and at the end, over which shares are averaged
SHOWN_STEPS = (20, 40, 80, 120, 160)
STRATA_FILE = Path(__file__).with_name("results") / "does_choosing_pay_strata.json"


def lines(runs: Sequence[ArmRun]) -> Iterator[str]:
    """The section of the page as lines of Markdown."""
    yield "## Why"
    yield ""
    yield (
        "Computed from the same runs afterwards. These tables describe; they were not planned, and "
        "no test belongs to them."
    )
    yield ""
    yield from arms_table(runs)
    yield ""
    yield (
        "*Live samples*: the samples times the share of groups with different rewards in the first "
        "pass over them. *Points gained* and *lost*: what the items that are answered better, or "
        "worse, than by the base "
        f"add to the score, or take from it, after {EQUAL_STEPS} steps. Each row is over its own "
        "seeds, as in the next tables. *Best run of all* is the highest score of any run at any "
        "step."
    )
    yield ""
    if STRATA_FILE.exists():
        yield from strata_table(json.loads(STRATA_FILE.read_text()))
        yield ""
    yield from speed_table(runs)
    yield ""
    yield from benchmarks_table(runs)


def first_pass_live(run: ArmRun) -> float | None:
    """The samples of a selection times the share of live groups in the first pass over it.

    None after SFT, whose samples are other ones than those of GRPO.
    """
    if run.sft_steps:
        return None
    steps = max(1, run.selected // PROMPTS_PER_STEP)  # an incomplete batch of a pass is left out
    return mean(run.live_share[:steps]) * run.selected


def gained_and_lost(run: ArmRun) -> tuple[float, float]:
    """Points that items gained and lost on the base, whose difference is the score minus base."""
    before, after = run.points[0].scores, run.at_equal_steps.scores
    changes = {
        name: [new - old for old, new in zip(before[name], after[name], strict=True)]
        for name in before
    }
    gained = mean(mean(max(change, 0) for change in row) for row in changes.values())
    lost = mean(mean(max(-change, 0) for change in row) for row in changes.values())
    return 100 * gained, 100 * lost


def arms_table(runs: Sequence[ArmRun]) -> Iterator[str]:
    """Live samples, live groups and gradient norms early and late, points gained and lost."""
    yield (
        "| arm | samples | live samples | live groups, first and last "
        f"{WINDOW} of GRPO's steps until {EQUAL_STEPS} | gradient norm, the same | points gained | "
        "points lost |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for arm in ARMS:
        rows = of_arm(runs, arm)
        if not rows:
            continue
        steps = min(EQUAL_STEPS - rows[0].sft_steps, len(rows[0].live_share))
        early, late = slice(WINDOW), slice(max(0, steps - WINDOW), steps)
        shares = [mean(mean(run.live_share[part]) for run in rows) for part in (early, late)]
        norms = [mean(mean(run.grad_norm[part]) for run in rows) for part in (early, late)]
        changes = [gained_and_lost(run) for run in rows]
        live = [samples for run in rows if (samples := first_pass_live(run)) is not None]
        yield (
            f"| {arm} | {mean(run.selected for run in rows):.0f} | "
            f"{f'{mean(live):.0f}' if live else ''} | {shares[0]:.0%}, {shares[1]:.0%} | "
            f"{norms[0]:.2f}, {norms[1]:.2f} | {mean(gained for gained, _ in changes):.1f} | "
            f"{mean(lost for _, lost in changes):.1f} |"
        )


def strata_table(content: dict[str, Any]) -> Iterator[str]:
    """Live groups by PISM's stratum of their sample, early and late in a training."""
    last = content["last_pass"]
    yield (
        "| stratum by PISM | share of the pool | samples built to be mastered, answered "
        "sometimes, never | live, first pass | "
        f"live, pass {last} | share of the first pass's live groups |"
    )
    yield "|---|--:|--:|--:|--:|--:|"
    for name in STRATA:
        if (row := content["strata"].get(name)) is None:
            continue
        yield (
            f"| {name} | {row['share']:.0%} | {row['easy']:.0f}, {row['sometimes']:.0f}, "
            f"{row['never']:.0f} | {row['live_first']:.0%} | {row['live_last']:.0%} | "
            f"{row['share_of_live']:.0%} |"
        )
    yield ""
    seeds = ", ".join(map(str, content["seeds"]))
    yield (
        f"Groups of whole pools, from the arm *{content['arm']}* of "
        "[online_difficulty](online_difficulty.md), which asks each sample in turn "
        f"(seeds {seeds}; `python studies/does_choosing_pay_strata.py`)."
    )


def speed_table(runs: Sequence[ArmRun]) -> Iterator[str]:
    """The difference of mid+hard to random and to the full pool along the way."""
    yield "| mid+hard minus | " + " | ".join(f"{step} steps" for step in SHOWN_STEPS) + " |"
    yield "|---|" + "--:|" * len(SHOWN_STEPS)
    for arm in ("random", "full"):
        if not (pairs := paired(runs, "mid+hard", arm)):
            continue
        curves = [[{p.step: p.mean for p in run.points} for run in pair] for pair in pairs]
        cells = []
        for step in SHOWN_STEPS:
            is_known = all(step in curve for pair in curves for curve in pair)
            values = [a[step] - b[step] for a, b in curves if is_known]
            cells.append(f"{round(mean(values), 1) + 0.0:+.1f}" if values else "")
        yield f"| {arm} ({len(pairs)} seeds) | {' | '.join(cells)} |"


def benchmarks_table(runs: Sequence[ArmRun]) -> Iterator[str]:
    """Scores by benchmark after equal steps, and what the longest runs on all samples reach."""
    arms = [arm for arm in MAIN if of_arm(runs, arm)]
    if not arms:
        return
    longest = max(run.points[-1].step for arm in arms for run in of_arm(runs, arm))
    names = list(runs[0].points[0].scores)
    yield (f"| benchmark | base | {' | '.join(arms)} | full, {longest} steps | best run of all |")
    yield "|---|" + "--:|" * (len(arms) + 3)
    for name in names:
        cells = [
            mean(score(run.points[0], name) for run in runs),
            *(mean(score(run.at_equal_steps, name) for run in of_arm(runs, arm)) for arm in arms),
            mean([score(run.points[-1], name) for run in of_arm(runs, "full")] or [float("nan")]),
            max(score(point, name) for run in runs for point in run.points),
        ]
        yield f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |"


def score(point: CurvePoint, benchmark: str) -> float:
    """The score of a benchmark in points of 100."""
    return 100 * mean(point.scores[benchmark])
