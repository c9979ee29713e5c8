"""Does choosing pay? RAP's subset against as many random samples, its parts, and the full pool.

    python benchmarks/pays.py [--seeds 1 2 3] [--steps 30] [KEY=VALUE ...]

Runs launch/train.py for each arm, seed and view (view 1: equal optimizer steps; view 2: one epoch
of its own samples), finished runs left alone, and after each run writes benchmarks/results/pays.md
and pays.json. A page that is not complete says what is missing.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pays_cost import Outcome, spent
from pays_page import Page

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty
from difftrain.records import Arm, ItemResult, Selection

ROOT = Path(__file__).resolve().parent.parent
ARMS = {
    "RAP": ["recipe=rap", "control=random"],
    "random": ["recipe=rap", "control=random"],
    "CDE alone": ["recipe=rap_cde"],
    "ACE alone": ["recipe=rap_ace"],
    "full pool": ["recipe=grpo_full", "difficulty=rap"],
}
"""The settings of each arm; `random` is the control that RAP's own run trains beside it."""
ALWAYS = ["probe.retest_samples=0"]
"""The report's reliability is no part of a choice's price."""
FIRST = ("RAP", "random", "full pool", "ACE alone", "CDE alone")
"""The order of the runs: what the others are held against comes first."""
REFUSED = 2
"""The exit code of a choice that leaves too few samples."""


@dataclass(frozen=True)
class Run:
    """One arm of one view and seed."""

    arm: str
    view: str
    seed: int
    config: RunConfig

    @property
    def who(self) -> str:
        """The arm's name among the places of its run."""
        return Arm.control if self.arm == "random" else Arm.tuned

    @property
    def places(self) -> RunPaths:
        """Where its stages lie."""
        return RunPaths(self.config)

    def is_done(self) -> bool:
        """Whether its checkpoint has been asked all benchmarks."""
        return manifest.read_manifest(self.places.evaluation(self.who)) is not None

    def picks(self) -> tuple[str, ...]:
        """The chosen samples in order, once they have been chosen; none before."""
        folder = self.places.selection(self.who)
        if manifest.read_manifest(folder) is None:
            return ()
        return tuple(each.sample_id for each in parquet.read(folder, Selection))


def views(steps: int) -> dict[str, list[str]]:
    """The settings of both views."""
    return {
        "steps": [f"grpo.max_steps={steps}"],
        "epochs": ["grpo.max_steps=null", "grpo.num_train_epochs=1"],
    }


def words_of(arm: str, view: list[str], seed: int, words: list[str]) -> list[str]:
    """The whole command line of a run."""
    return [*ARMS[arm], *ALWAYS, f"seed={seed}", *view, *words]


def choose(run: Run) -> None:
    """Make the choice where the scores are there; it costs nothing. Raises NothingChosen."""
    if manifest.read_manifest(run.places.score) is not None:
        difficulty.select(run.config, run.places, World(), run.who)


def twin(run: Run, done: dict[str, Outcome], runs: dict[str, Run]) -> str | None:
    """A finished arm of this view and seed that trained on the same samples in the same order."""
    picks = run.picks()
    same = (name for name, each in done.items() if each.marks and runs[name].picks() == picks)
    return next(same, None) if picks else None


def execute(run: Run, words: list[str], log: Path) -> str | None:
    """Train and evaluate by launch/train.py; why it refused, or None. Raises if it failed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "launch" / "train.py"), *words]
    print(f"{run.view} seed {run.seed} {run.arm}: {' '.join(words)}", flush=True)
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
    if done.returncode == REFUSED:
        return log.read_text().strip().splitlines()[-1]
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: see {log}; the same command continues")
    return None


def outcome(run: Run, words: list[str], done: dict[str, Outcome], runs: dict[str, Run]) -> Outcome:
    """Do what this run still needs, and read what it came to."""
    log = Path(run.config.output_dir) / "logs" / f"{run.view}-{run.seed}-{run.arm}.log"
    like = None
    if not run.is_done():
        try:
            choose(run)
        except difficulty.strata.EmptySelectionError as error:
            return Outcome(len(run.picks()), refused=str(error))
        like = twin(run, done, runs)
        if like is None and (refused := execute(run, words, log.absolute())):
            return Outcome(len(run.picks()), refused=refused)
    source = runs[like] if like else run
    marks = parquet.read(source.places.evaluation(source.who), ItemResult)
    cost = spent(run.arm, run.config, source.places.grpo(source.who))
    return Outcome(len(run.picks()), cost, marks, like)


def main() -> None:
    """Run what is missing, view by view, and write the page after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of view 1")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    arguments, given = parser.parse_known_args()
    if not any(word.startswith("output_dir=") for word in given):
        given = ["output_dir=outputs/pays", *given]
    chosen = views(arguments.steps)
    found: dict[tuple[str, int], dict[str, Outcome]] = {}
    base: list[ItemResult] | None = None
    page = Page(arguments.results, arguments.steps, arguments.seeds, given)
    for view, seed in product(chosen, arguments.seeds):
        lines = {arm: words_of(arm, chosen[view], seed, given) for arm in FIRST}
        runs = {arm: Run(arm, view, seed, resolve(compose_config(lines[arm]))) for arm in FIRST}
        done = found.setdefault((view, seed), {})
        for arm in FIRST:
            done[arm] = outcome(runs[arm], lines[arm], done, runs)
            folder = runs[arm].places.evaluation(Arm.base)
            if base is None and manifest.read_manifest(folder):
                base = parquet.read(folder, ItemResult)
            page.write(found, base)
    print(page.path)


if __name__ == "__main__":
    main()
