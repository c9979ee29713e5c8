"""Does selecting samples help? Train on the samples that RAP selects, on random ones, and on all.

    python studies/selection_ablation.py [--seeds 1 2 3] [--steps 30] [KEY=VALUE ...]

The paper RAP selects samples by three measures of the model's responses: CDE (accuracy with the
image minus accuracy without it), ACE (how biased attention is towards one token of the response)
and DRM (one minus the accuracy with the image). An arm is one way to select the training samples:
RAP, CDE alone, ACE alone, random samples, or all samples (the full pool).

The script runs launch/train.py for each arm, seed and view. View 1 gives all arms equal optimizer
steps, view 2 gives each arm one epoch of its samples. Finished runs are not repeated. After each
run it writes selection_ablation.md and .json to studies/results; an incomplete page says what is
missing.
"""

import argparse
import logging
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from selection_ablation_page import ArmOutcome, Outcomes, Page, arm_cost

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty
from difftrain.records import Arm, ItemResult, Selection
from difftrain.select import EmptySelectionError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
ARMS = {
    "RAP": ["recipe=rap", "control=random"],
    "random": ["recipe=rap", "control=random"],
    "full pool": ["recipe=grpo_full", "difficulty=rap"],
    "ACE alone": ["recipe=rap_ace"],
    "CDE alone": ["recipe=rap_cde"],
}
"""The settings of each arm, in the order of the runs. `random` needs no run of its own: RAP's run
also trains a control on as many random samples."""
COMMON_SETTINGS = ["probe.retest_samples=0"]
"""The retest scores some samples a second time, to show how repeatable scores are. It is off here,
because it is not a cost of selection."""
EXIT_CODE_TOO_FEW_SAMPLES = 2
"""launch/train.py ends with this code if the selection is too small (or settings are wrong)."""


@dataclass(frozen=True)
class AblationRun:
    """The run of one arm in one view with one seed."""

    arm: str
    view: str
    seed: int
    config: RunConfig
    overrides: list[str]

    @property
    def checkpoint(self) -> Arm:
        """The arm's checkpoint in the run: the control for the random arm, else the tuned model."""
        return Arm.control if self.arm == "random" else Arm.tuned

    @property
    def paths(self) -> RunPaths:
        """The folders of the run's stages."""
        return RunPaths(self.config)

    def is_done(self) -> bool:
        """Whether the arm's checkpoint has been evaluated."""
        return manifest.read_manifest(self.paths.evaluation(self.checkpoint)) is not None

    def selected_ids(self) -> tuple[str, ...]:
        """The ids of the selected samples in order; empty if no samples have been selected."""
        folder = self.paths.selection(self.checkpoint)
        if manifest.read_manifest(folder) is None:
            return ()
        return tuple(selection.sample_id for selection in parquet.read_rows(folder, Selection))


def view_settings(steps: int) -> dict[str, list[str]]:
    """The settings of view 1 ("steps") and of view 2 ("epochs")."""
    return {
        "steps": [f"grpo.max_steps={steps}"],
        "epochs": ["grpo.max_steps=null", "grpo.num_train_epochs=1"],
    }


def select_samples(run: AblationRun) -> None:
    """Select samples now if they are scored. Raises EmptySelectionError if too few are selected."""
    if manifest.read_manifest(run.paths.score) is not None:
        difficulty.select(run.config, run.paths, World(), run.checkpoint)


def arm_with_same_samples(
    run: AblationRun, outcomes: dict[str, ArmOutcome], runs: dict[str, AblationRun]
) -> str | None:
    """The name of a finished arm that trained on the same samples in the same order, or None."""
    ids = run.selected_ids()
    finished = (arm for arm, outcome in outcomes.items() if outcome.results)
    arms = (arm for arm in finished if runs[arm].selected_ids() == ids)
    return next(arms, None) if ids else None


def execute(run: AblationRun, log: Path) -> str | None:
    """Run launch/train.py; returns None, or the error if too few samples were selected.

    Exits for any other error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "launch" / "train.py"), *run.overrides]
    logger.info("%s seed %d %s: %s", run.view, run.seed, run.arm, " ".join(run.overrides))
    with log.open("a") as file:
        process = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
    if process.returncode == EXIT_CODE_TOO_FEW_SAMPLES:
        return log.read_text().strip().splitlines()[-1]  # the error message
    if process.returncode:
        raise SystemExit(
            f"exit code {process.returncode}: see {log}; run the same command again to continue"
        )
    return None


def run_arm(
    run: AblationRun, outcomes: dict[str, ArmOutcome], runs: dict[str, AblationRun]
) -> ArmOutcome:
    """Run what is not finished of this run, and read its results."""
    log = Path(run.config.output_dir) / "logs" / f"{run.view}-{run.seed}-{run.arm}.log"
    same_as = None
    if not run.is_done():
        try:
            select_samples(run)
        except EmptySelectionError as error:
            return ArmOutcome(len(run.selected_ids()), refused=str(error))
        same_as = arm_with_same_samples(run, outcomes, runs)
        if same_as is None and (refused := execute(run, log.absolute())):
            return ArmOutcome(len(run.selected_ids()), refused=refused)
    source = runs[same_as] if same_as else run
    results = parquet.read_rows(source.paths.evaluation(source.checkpoint), ItemResult)
    # The selection's cost is the arm's own; the training's is that of the shared training.
    cost = arm_cost(run.arm, run.config, source.paths.grpo(source.checkpoint))
    return ArmOutcome(len(run.selected_ids()), cost, results, same_as)


def main() -> None:
    """Run all arms that are not finished, view by view, and write the page after each run."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of view 1")
    parser.add_argument("--results", type=Path, default=ROOT / "studies" / "results")
    arguments, overrides = parser.parse_known_args()
    if not any(override.startswith("output_dir=") for override in overrides):
        overrides = ["output_dir=outputs/selection_ablation", *overrides]
    views = view_settings(arguments.steps)
    all_outcomes: Outcomes = {}
    base_results: list[ItemResult] | None = None
    page = Page(arguments.results, arguments.steps, arguments.seeds, overrides)
    for view, seed in product(views, arguments.seeds):
        runs = {}
        for arm, settings in ARMS.items():
            run_overrides = [*settings, *COMMON_SETTINGS, f"seed={seed}", *views[view], *overrides]
            config = resolve(compose_config(run_overrides))
            runs[arm] = AblationRun(arm, view, seed, config, run_overrides)
        outcomes = all_outcomes.setdefault((view, seed), {})
        for arm, run in runs.items():
            outcomes[arm] = run_arm(run, outcomes, runs)
            folder = run.paths.evaluation(Arm.base)
            if base_results is None and manifest.read_manifest(folder):
                base_results = parquet.read_rows(folder, ItemResult)
            page.write(all_outcomes, base_results)
    print(page.path)


if __name__ == "__main__":
    main()
