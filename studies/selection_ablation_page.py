"""Write the page of selection_ablation.py: tables like Table 1 of the paper RAP, findings, costs.

An arm is one way to select the training samples. A view is one way to train the arms comparably:
all arms for equally many optimizer steps, or each arm for one epoch. (The field `view` of a rollout
is something else: it says whether the model sees the full image.)

Scores are averaged over seeds item by item, then items are resampled: the intervals cover the
variance of items, not that of seeds. A second table shows the results of each seed. The benchmarks
are the six built-in ones, whose names begin with shapes/: drawings of colored shapes.

All arms of a seed share one probe: the rollouts (responses) from which RAP's measures are computed.
CDE is the accuracy with the image minus the accuracy without it. ACE is how biased attention is
towards one token of the response. The page counts only the part of the probe that an arm's
selection needs. RAP needs everything. CDE needs all rollouts, with and without the image, but no
attention pass (a forward pass that records attention). ACE needs one rollout with the image, and
the attention pass. Random samples and the full pool need nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

from difftrain.config.evaluate import BUILT_IN
from difftrain.config.run_config import RunConfig
from difftrain.evaluate import summary
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.paths import RunPaths
from difftrain.records import ItemResult, Rollout, View

ARMS = ("full pool", "random", "CDE alone", "ACE alone", "RAP")
"""The rows of every table: ways to select the training samples."""
TITLES = {
    "steps": "View 1: equal optimizer steps ({steps} steps for every arm)",
    "epochs": "View 2: equal epochs (each arm sees its own samples once)",
}


@dataclass(frozen=True, slots=True)
class ArmCost:
    """Generations and seconds of selection and of training, and the optimizer steps."""

    selection_generations: int
    selection_seconds: float
    train_generations: int
    train_seconds: float
    steps: int


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """Results and cost of one arm's run.

    `same_as` names another arm that selected the same samples; this arm shares its training.
    `refused` is the error if the arm selected too few samples to train on.
    """

    samples: int
    cost: ArmCost | None = None
    results: list[ItemResult] | None = None
    same_as: str | None = None
    refused: str | None = None


Outcomes = dict[tuple[str, int], dict[str, ArmOutcome]]
"""The outcomes by (view, seed), then by arm."""


@cache
def probe_counts(folder: Path) -> tuple[int, float]:
    """The number of a probe's rollouts, and the tokens of ACE's rollouts as a share of all tokens.

    ACE needs each sample's first rollout with the full image.
    """
    rows = parquet.read_rows(folder, Rollout)
    first = [row for row in rows if row.view is View.full_image and row.draw == 0]
    tokens = sum(row.num_tokens for row in rows)
    return len(rows), sum(row.num_tokens for row in first) / tokens


@cache
def count_first_rollouts(folder: Path) -> int:
    """The number of ACE's rollouts: the first one of each sample with the full image."""
    rows = parquet.read_rows(folder, Rollout)
    return sum(row.view is View.full_image and row.draw == 0 for row in rows)


def require_manifest(folder: Path) -> dict[str, Any]:
    """A finished stage's manifest.json. Raises MissingArtifact if there is none."""
    content = manifest.read_manifest(folder)
    if content is None:
        raise parquet.MissingArtifact(f"no finished stage at {folder}")
    return content


def selection_cost(arm: str, config: RunConfig) -> tuple[int, float]:
    """Generations and seconds that an arm's selection needs.

    The seconds of ACE's rollouts are estimated by their share of all tokens. Raises KeyError for an
    unknown arm.
    """
    if arm in ("random", "full pool"):
        return 0, 0.0
    paths = RunPaths(config)
    num_rollouts, ace_share = probe_counts(paths.probe)
    probe_s = require_manifest(paths.probe)["seconds"]
    attention_s = require_manifest(paths.attention)["seconds"]
    by_arm = {
        "RAP": (num_rollouts, probe_s + attention_s),
        "CDE alone": (num_rollouts, probe_s),
        "ACE alone": (count_first_rollouts(paths.probe), probe_s * ace_share + attention_s),
    }
    generations, seconds = by_arm[arm]
    return generations, seconds + require_manifest(paths.score)["seconds"]


def arm_cost(arm: str, config: RunConfig, train_folder: Path) -> ArmCost:
    """The cost of an arm's selection, and of its training, which is in this folder."""
    training = require_manifest(train_folder)
    counts = training["counts"]
    selection = selection_cost(arm, config)
    return ArmCost(*selection, counts["generations"], training["seconds"], int(counts["steps"]))


def mean_over_seeds(runs: Sequence[Sequence[ItemResult]]) -> list[ItemResult]:
    """Each item's mean score over runs; None if a run has no score for it."""
    by_item: dict[tuple[str, str], list[ItemResult]] = {}
    for run in runs:
        for result in run:
            by_item.setdefault((result.benchmark, result.item_id), []).append(result)
    averaged = []
    for results in by_item.values():
        scores = [result.score for result in results if result.score is not None]
        complete = len(scores) == len(runs)
        averaged.append(replace(results[0], score=mean(scores) if complete else None))
    return averaged


def benchmark_scores(results: Sequence[ItemResult]) -> dict[str, Any]:
    """The score of each built-in shapes/ benchmark, and their unweighted mean with its interval."""
    groups = {name: [row for row in results if row.benchmark == name] for name in BUILT_IN}
    groups = {name: group for name, group in groups.items() if group}
    return {
        **{name: summary.summarize(name, group).score for name, group in groups.items()},
        "mean": asdict(summary.summarize_mean(groups)),
    }


def seed_interval(differences: Sequence[float]) -> dict[str, float] | None:
    """Mean of per-seed differences and its 95 % interval by Student's t; None for a single seed."""
    num_seeds = len(differences)
    if num_seeds < 2:
        return None
    half_width = float(stats.t.ppf(0.975, num_seeds - 1)) * stdev(differences) / num_seeds**0.5
    center = mean(differences)
    return {"mean": center, "low": center - half_width, "high": center + half_width}


def arm_row(
    by_seed: dict[int, ArmOutcome], random_by_seed: dict[int, ArmOutcome]
) -> dict[str, Any]:
    """Everything that the tables show about one arm in one view."""
    runs = {seed: outcome for seed, outcome in by_seed.items() if outcome.results and outcome.cost}
    shared_seeds = [
        seed for seed in runs if seed in random_by_seed and random_by_seed[seed].results
    ]
    row: dict[str, Any] = {
        "seeds": sorted(runs),
        "samples": {str(seed): outcome.samples for seed, outcome in sorted(by_seed.items())},
        "same_as": {str(seed): run.same_as for seed, run in sorted(runs.items()) if run.same_as},
        "refused": {str(seed): run.refused for seed, run in by_seed.items() if run.refused},
    }
    if runs:
        costs = [asdict(outcome.cost) for outcome in runs.values()]
        row["cost"] = {key: mean(cost[key] for cost in costs) for key in costs[0]}
        row |= benchmark_scores(mean_over_seeds([outcome.results for outcome in runs.values()]))
        row["mean_by_seed"] = {
            str(seed): benchmark_scores(outcome.results)["mean"]["score"]
            for seed, outcome in sorted(runs.items())
        }
    if shared_seeds:
        pairs = [(random_by_seed[seed].results, runs[seed].results) for seed in shared_seeds]
        control, arm = (mean_over_seeds(side) for side in zip(*pairs, strict=True))
        differences = [summary.paired_difference(*pair).mean for pair in pairs]
        row["minus_random"] = asdict(summary.paired_difference(control, arm))
        row["minus_random_by_seed"] = dict(zip(map(str, shared_seeds), differences, strict=True))
        row["minus_random_over_seeds"] = seed_interval(differences)
    return row


def format_points(value: float) -> str:
    """A fraction of 1 in points of 100."""
    return f"{100 * value:.1f}"


def format_difference(difference: dict[str, float] | None) -> str:
    """A difference and its interval in points, as `+2.1 [+0.4, +3.9]`; for None: `one seed`."""
    if difference is None:
        return "one seed"
    center, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
    return f"{center:+.1f} [{low:+.1f}, {high:+.1f}]"


def sample_counts(samples: dict[str, int]) -> str:
    """The number of samples of each seed, or one number if all are equal."""
    return " / ".join(map(str, dict.fromkeys(samples.values())))


def mean_cell(cell: dict[str, float]) -> str:
    """The mean over the shapes/ benchmarks with its interval."""
    score, low, high = (format_points(cell[key]) for key in ("score", "low", "high"))
    return f"**{score}** [{low}, {high}]"


NUM_COLUMNS = 8 + len(BUILT_IN)
"""Columns of the main table: one for each of the six shapes/ benchmarks, and eight others."""


def arm_cells(arm: str, row: dict[str, Any]) -> list[str]:
    """The cells of an arm's row in the main table."""
    if "cost" not in row:
        reason = "refused" if row["refused"] else "not run yet"
        empty_cells = [""] * (NUM_COLUMNS - 3)  # all cells after the reason
        return [arm, sample_counts(row["samples"]), reason, *empty_cells]
    cost = row["cost"]
    return [
        arm,
        sample_counts(row["samples"]),
        f"{cost['steps']:.0f}",
        f"{cost['selection_generations']:.0f} + {cost['train_generations']:.0f}",
        f"{cost['selection_seconds']:.0f} + {cost['train_seconds']:.0f}",
        *(format_points(row[name]) if name in row else "" for name in BUILT_IN),
        mean_cell(row["mean"]),
        format_difference(row["minus_random"]) if "minus_random" in row and arm != "random" else "",
        ", ".join(map(str, row["seeds"])),
    ]


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def main_table(rows: dict[str, dict[str, Any]], base: dict[str, Any] | None) -> list[str]:
    """Samples, cost, scores of the six shapes/ benchmarks, mean, and the difference from random."""
    names = [name.removeprefix("shapes/") for name in BUILT_IN]
    head = [
        "arm", "samples", "steps", "generations: selection + training",
        "seconds: selection + training",
    ]  # fmt: skip
    lines = [
        line([*head, *names, "average, 95 %", "minus random, 95 %", "seeds"]),
        line(["---"] * NUM_COLUMNS),
    ]
    if base:
        scores = [format_points(base[name]) if name in base else "" for name in BUILT_IN]
        zeros = ["0"] * (len(head) - 1)  # the untrained model has no samples, steps or cost
        lines.append(line(["untrained", *zeros, *scores, mean_cell(base["mean"]), "", ""]))
    return [*lines, *(line(arm_cells(arm, rows[arm])) for arm in ARMS)]


def seed_table(rows: dict[str, dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    """Each seed's mean, and its difference from the random arm of the same seed."""
    lines = [
        line(["arm", *(f"seed {seed}" for seed in seeds), "minus random over seeds, 95 %"]),
        line(["---"] * (len(seeds) + 2)),
    ]
    for arm in ARMS:
        row, cells = rows[arm], []
        for seed in map(str, seeds):
            score = row.get("mean_by_seed", {}).get(seed)
            difference = row.get("minus_random_by_seed", {}).get(seed)
            text = "missing" if score is None else format_points(score)
            if difference is not None and arm != "random":
                text += f" ({100 * difference:+.1f})"
            cells.append(text)
        has_difference = "minus_random_by_seed" in row and arm != "random"
        over_seeds = format_difference(row["minus_random_over_seeds"]) if has_difference else ""
        lines.append(line([arm, *cells, over_seeds]))
    return lines


def findings(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Lines that say what each arm's difference from the random arm shows, or why it is missing."""
    lines = []
    for arm in ARMS:
        row = rows[arm]
        for seed, other_arm in row["same_as"].items():
            lines.append(
                f"* {arm}, seed {seed}: selects the same samples as {other_arm}, in the same "
                "order, so it shares that training, which was not repeated."
            )
        for seed, reason in row["refused"].items():
            lines.append(f"* {arm}, seed {seed}: {reason}")
        if arm == "random" or "minus_random" not in row:
            continue
        difference = row["minus_random"]
        verdict = "no difference is shown: the interval contains zero"
        if difference["low"] > 0:
            verdict = "better than the random arm; other seeds may differ"
        if difference["high"] < 0:
            verdict = "worse than the random arm; other seeds may differ"
        by_seed = list(row["minus_random_by_seed"].values())
        num_above = sum(difference > 0 for difference in by_seed)
        lines.append(
            f"* {arm} minus random: {format_difference(difference)} points; above zero in "
            f"{num_above} of {len(by_seed)} seeds; {verdict}."
        )
    return lines


@dataclass(frozen=True)
class Page:
    """The page's folder, and the arguments of the study."""

    folder: Path
    steps: int
    seeds: list[int]
    overrides: list[str]

    @property
    def path(self) -> Path:
        """The file of the page."""
        return self.folder / "selection_ablation.md"

    @property
    def command(self) -> str:
        """The command that writes the page."""
        overrides = [word for word in self.overrides if not word.startswith("output_dir=")]
        seeds = " ".join(map(str, self.seeds))
        start = f"python studies/selection_ablation.py --seeds {seeds} --steps {self.steps}"
        return " ".join([start, *overrides])

    def missing(self, outcomes: Outcomes) -> list[str]:
        """The arms that have not run yet, one line for each view and seed."""
        lines = []
        for view in TITLES:
            for seed in self.seeds:
                arms = [arm for arm in ARMS if arm not in outcomes.get((view, seed), {})]
                if arms:
                    lines.append(f"{view}, seed {seed}: {', '.join(arms)}")
        return lines

    def write(self, outcomes: Outcomes, base: list[ItemResult] | None) -> None:
        """Write selection_ablation.md and .json from the finished runs.

        `base` has the results of the untrained model; None if it has not been evaluated yet.
        """
        views = {}
        for view in TITLES:
            by_arm: dict[str, dict[int, ArmOutcome]] = {arm: {} for arm in ARMS}
            for (name, seed), arms in outcomes.items():
                for arm, outcome in arms.items():
                    if name == view:
                        by_arm[arm][seed] = outcome
            views[view] = {arm: arm_row(by_arm[arm], by_arm["random"]) for arm in ARMS}
        result = {
            "command": self.command,
            "versions": manifest.versions(),
            "views": views,
            "untrained": benchmark_scores(base) if base else None,
            "missing": self.missing(outcomes),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.render(result))
        manifest.write_json(self.path.with_suffix(".json"), result)

    def render(self, result: dict[str, Any]) -> str:
        """The content of selection_ablation.md."""
        lines = [
            "# Does selecting samples help? RAP, its parts, random samples and the full pool",
            "",
            f"`{self.command}`",
            "",
            "Scores on six shapes/ benchmarks and their unweighted mean, in points of 100.",
            "Scores are averaged over the seeds item by item; intervals are 95 % bootstrap",
            "intervals over items, and differences are paired by item. The second table of each",
            "view shows how results vary over seeds (Student's interval). `random` is the control",
            "of RAP's selection: as many random samples, other ones for each seed.",
            "",
            "Cost: generations and elapsed seconds of selection and of training, without",
            "evaluation. Each selection counts only what it needs. RAP needs M rollouts",
            "(probe.cde_rollouts) with the image, M without it, and the attention pass. CDE needs",
            "the rollouts alone. ACE needs one rollout with the image, whose seconds are estimated",
            "by its share of the tokens, and the attention pass. Seconds were measured on one core",
            "that other work may have shared; generations are exact.",
        ]
        if result["missing"]:
            lines += ["", f"**Not complete**, still to run: {'; '.join(result['missing'])}."]
        for view, title in TITLES.items():
            rows = result["views"][view]
            lines += ["", f"## {title.format(steps=self.steps)}", ""]
            lines += main_table(rows, result["untrained"])
            lines += [
                "",
                "Mean by seed; in brackets the difference from random with the same seed.",
                "",
            ]
            lines += [*seed_table(rows, self.seeds), "", *findings(rows)]
        return "\n".join([*lines, ""])
