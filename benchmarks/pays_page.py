"""The page of pays.py: tables like the second paper's Table 1, and what they say.

Marks are averaged over seeds item by item, then items are drawn again: the interval speaks of other
items, for these seeds. What other seeds would do is told apart, seed by seed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pays_cost import Outcome
from scipy import stats

from difftrain.config.evaluate import MINIATURES
from difftrain.evaluate import summary
from difftrain.pipeline import manifest
from difftrain.records import ItemResult

ROWS = ("full pool", "random", "CDE alone", "ACE alone", "RAP")
TITLES = {
    "steps": "View 1: equal optimizer steps ({steps} steps for every arm)",
    "epochs": "View 2: equal epochs (each arm sees its own samples once)",
}
Found = dict[tuple[str, int], dict[str, Outcome]]


def averaged(marks: Sequence[Sequence[ItemResult]]) -> list[ItemResult]:
    """Each item's mark averaged over runs; an item without a score in any run has none."""
    columns: dict[tuple[str, str], list[ItemResult]] = {}
    for run in marks:
        for each in run:
            columns.setdefault((each.benchmark, each.item_id), []).append(each)
    found = []
    for same in columns.values():
        scores = [each.score for each in same if each.score is not None]
        whole = len(scores) == len(marks)
        found.append(replace(same[0], score=mean(scores) if whole else None))
    return found


def headlines(marks: Sequence[ItemResult]) -> dict[str, Any]:
    """Score of each miniature, and their unweighted mean with its interval."""
    groups = {name: [each for each in marks if each.benchmark == name] for name in MINIATURES}
    groups = {name: group for name, group in groups.items() if group}
    return {
        **{name: summary.summarize(name, group).score for name, group in groups.items()},
        "mean": asdict(summary.summarize_mean(groups)),
    }


def over_seeds(gaps: Sequence[float]) -> dict[str, float] | None:
    """Mean and 95 % interval (Student) of per-seed differences; None for fewer than two seeds."""
    if len(gaps) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(gaps) - 1)) * stdev(gaps) / len(gaps) ** 0.5
    return {"mean": mean(gaps), "low": mean(gaps) - half, "high": mean(gaps) + half}


def row(by_seed: dict[int, Outcome], random: dict[int, Outcome]) -> dict[str, Any]:
    """Everything that a table tells of one arm in one view."""
    run = {seed: each for seed, each in by_seed.items() if each.marks and each.cost}
    both = [seed for seed in run if seed in random and random[seed].marks]
    found: dict[str, Any] = {
        "seeds": sorted(run),
        "samples": {str(seed): each.samples for seed, each in sorted(by_seed.items())},
        "same_as": {str(seed): each.like for seed, each in sorted(run.items()) if each.like},
        "refused": {str(seed): each.refused for seed, each in by_seed.items() if each.refused},
    }
    if run:
        costs = [asdict(each.cost) for each in run.values()]
        found["cost"] = {key: mean(cost[key] for cost in costs) for key in costs[0]}
        found |= headlines(averaged([each.marks for each in run.values()]))
        found["mean_by_seed"] = {
            str(seed): headlines(each.marks)["mean"]["score"] for seed, each in sorted(run.items())
        }
    if both:
        pairs = [(random[seed].marks, run[seed].marks) for seed in both]
        one, two = (averaged(side) for side in zip(*pairs, strict=True))
        gaps = [summary.paired_difference(*pair).mean for pair in pairs]
        found["minus_random"] = summary.paired_difference(one, two).to_json()
        found["minus_random_by_seed"] = dict(zip(map(str, both), gaps, strict=True))
        found["minus_random_over_seeds"] = over_seeds(gaps)
    return found


def points(value: float) -> str:
    """A fraction as points of a hundred."""
    return f"{100 * value:.1f}"


def signed(cell: dict[str, float] | None) -> str:
    """A difference with its interval, in points."""
    if cell is None:
        return "one seed"
    low, high = 100 * cell["low"], 100 * cell["high"]
    return f"{100 * cell['mean']:+.1f} [{low:+.1f}, {high:+.1f}]"


def count(samples: dict[str, int]) -> str:
    """Numbers of samples over the seeds, as one number where they are equal."""
    return " / ".join(map(str, dict.fromkeys(samples.values())))


def cells(arm: str, told: dict[str, Any]) -> list[str]:
    """One row of the big table."""
    if "cost" not in told:
        why = "refused" if told["refused"] else "not run yet"
        return [arm, count(told["samples"]) or "", why, *[""] * 11]
    cost = told["cost"]
    asked = f"{cost['choice_generations']:.0f} + {cost['train_generations']:.0f}"
    seconds = f"{cost['choice_seconds']:.0f} + {cost['train_seconds']:.0f}"
    mean_cell = told["mean"]
    spread = f"[{points(mean_cell['low'])}, {points(mean_cell['high'])}]"
    gap = signed(told["minus_random"]) if "minus_random" in told and arm != "random" else ""
    return [
        arm,
        count(told["samples"]),
        f"{cost['steps']:.0f}",
        asked,
        seconds,
        *(points(told[name]) if name in told else "" for name in MINIATURES),
        f"**{points(mean_cell['score'])}** {spread}",
        gap,
        ", ".join(map(str, told["seeds"])),
    ]


def line(parts: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(parts) + " |"


def big_table(rows: dict[str, dict[str, Any]], base: dict[str, Any] | None) -> list[str]:
    """Samples, cost, six miniatures, average and the difference to the random arm."""
    names = [name.removeprefix("shapes/") for name in MINIATURES]
    head = ["arm", "samples", "steps", "answers: choice + training", "seconds: choice + training"]
    lines = [
        line([*head, *names, "average, 95 %", "minus random, 95 %", "seeds"]),
        line(["---"] * 14),
    ]
    if base:
        figures = [points(base[name]) if name in base else "" for name in MINIATURES]
        spread = f"[{points(base['mean']['low'])}, {points(base['mean']['high'])}]"
        whole = f"**{points(base['mean']['score'])}** {spread}"
        lines.append(line(["untrained", "0", "0", "0", "0", *figures, whole, "", ""]))
    return [*lines, *(line(cells(arm, rows[arm])) for arm in ROWS)]


def seed_table(rows: dict[str, dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """Each seed's average and its difference to the random arm of the same seed."""
    lines = [
        line(["arm", *(f"seed {seed}" for seed in seeds), "minus random over seeds, 95 %"]),
        line(["---"] * (len(seeds) + 2)),
    ]
    for arm in ROWS:
        told, parts = rows[arm], []
        for seed in map(str, seeds):
            own = told.get("mean_by_seed", {}).get(seed)
            gap = told.get("minus_random_by_seed", {}).get(seed)
            text = "missing" if own is None else points(own)
            parts.append(text if gap is None or arm == "random" else f"{text} ({100 * gap:+.1f})")
        known = "minus_random_by_seed" in told and arm != "random"
        end = signed(told["minus_random_over_seeds"]) if known else ""
        lines.append(line([arm, *parts, end]))
    return lines


def says(rows: dict[str, dict[str, Any]]) -> list[str]:
    """What the differences to the random arm amount to, one line an arm."""
    found = []
    for arm in ROWS:
        told = rows[arm]
        for seed, other in told["same_as"].items():
            found.append(
                f"* {arm}, seed {seed}: chooses the very samples of {other}, in the same order, so "
                "its training is that one's and was not run twice."
            )
        for seed, why in told["refused"].items():
            found.append(f"* {arm}, seed {seed}: {why}")
        if arm == "random" or "minus_random" not in told:
            continue
        cell = told["minus_random"]
        verdict = "no difference is shown: the interval holds zero"
        if cell["low"] > 0:
            verdict = "better than the random arm, over other items for these seeds"
        if cell["high"] < 0:
            verdict = "worse than the random arm, over other items for these seeds"
        gaps = list(told["minus_random_by_seed"].values())
        above = sum(gap > 0 for gap in gaps)
        found.append(
            f"* {arm} minus random: {signed(cell)} points; above zero in {above} of {len(gaps)} "
            f"seeds; {verdict}."
        )
    return found


@dataclass(frozen=True)
class Page:
    """Where the page is written, and what it was asked for."""

    folder: Path
    steps: int
    seeds: list[int]
    words: list[str]

    @property
    def path(self) -> Path:
        """The page."""
        return self.folder / "pays.md"

    @property
    def command(self) -> str:
        """What makes it again."""
        given = [word for word in self.words if not word.startswith("output_dir=")]
        seeds = " ".join(map(str, self.seeds))
        start = f"python benchmarks/pays.py --seeds {seeds} --steps {self.steps}"
        return " ".join([start, *given])

    def missing(self, found: Found) -> list[str]:
        """The runs that are still to come, a view and seed at a time."""
        told = []
        for view in TITLES:
            for seed in self.seeds:
                lacking = [arm for arm in ROWS if arm not in found.get((view, seed), {})]
                if lacking:
                    told.append(f"{view}, seed {seed}: {', '.join(lacking)}")
        return told

    def write(self, found: Found, base: list[ItemResult] | None) -> None:
        """Write pays.md and pays.json from what there is."""
        ground = headlines(base) if base else None
        missing = self.missing(found)
        lines = [*self.opening(missing)]
        kept: dict[str, Any] = {}
        for view, title in TITLES.items():
            by_arm = {
                arm: {
                    seed: done[arm]
                    for (name, seed), done in found.items()
                    if name == view and arm in done
                }
                for arm in ROWS
            }
            rows = {arm: row(by_arm[arm], by_arm["random"]) for arm in ROWS}
            kept[view] = rows
            lines += ["", f"## {title.format(steps=self.steps)}", ""]
            lines += big_table(rows, ground)
            lines += ["", "Average by seed; in brackets minus random of the same seed.", ""]
            lines += [*seed_table(rows, self.seeds), "", *says(rows)]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join([*lines, ""]))
        versions = manifest.versions()
        result = {"command": self.command, "versions": versions, "views": kept, "untrained": ground}
        manifest.write_json(self.folder / "pays.json", {**result, "missing": missing})

    def opening(self, missing: list[str]) -> list[str]:
        """What the page is, before its tables."""
        lines = [
            "# Does choosing pay? RAP, its parts, random samples and the full pool",
            "",
            f"`{self.command}`",
            "",
            "Six miniatures of the shapes world and their unweighted mean, points of a hundred.",
            "Marks are averaged over the seeds item by item; intervals are 95 % bootstrap",
            "intervals over items, differences are paired by item. What another seed would give",
            "stands in the second table of each view (Student's interval over seeds).",
            "`random` is the equal-size random control of RAP's choice, drawn anew for each seed.",
            "",
            "Cost: answers the model gives, and wall seconds, for choosing and for training;",
            "evaluation is not counted. A choice is charged what it asks: RAP M answers with the",
            "picture and M without, and the attention pass; CDE the same without the pass; ACE one",
            "answer with the picture (its share of the probe's tokens) and the pass. Seconds were",
            "measured on one core that other work may have shared; answers do not depend on that.",
        ]
        if missing:
            lines += ["", f"**Not complete**, still to run: {'; '.join(missing)}."]
        return lines
