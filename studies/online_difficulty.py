"""Does difficulty that follows the policy help, where most groups bring no gradient?

    python studies/online_difficulty.py [KEY=VALUE ...] [--seeds 1 2 ...]  # missing runs, page
    python studies/online_difficulty.py --page                            # only the page

Pools, steps, benchmarks and cost are those of does_choosing_pay.py (data.mix=paper). Six arms train
on the same pool of a seed: uniform sampling, the medium and hard samples of a probe, refill of
zero-variance groups (grpo.dynamic_sampling), two samplers with a memory, and both kinds of choosing
together. online_difficulty_plan.md says what is compared and how; it was committed before the runs.

A finished run leaves one small file in studies/results/online_difficulty/, and is not repeated. A
killed run continues from its last checkpoint. Two arms have the settings of does_choosing_pay.py;
if that study has run them, its rows are taken.
"""

import argparse
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import online_difficulty_page as page
from does_choosing_pay import (
    COMMON,
    EVAL_STEPS,
    FULL_STEPS,
    Benchmarks,
    CurveCallback,
    count_selected,
    probe_tokens,
    read_curve,
)
from does_choosing_pay import ROWS as CHOOSING_ROWS
from does_choosing_pay_rows import ArmRun, CurvePoint, read_runs
from online_difficulty_page import OnlineRun

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.pipeline import manifest
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty, grpo
from difftrain.records import Arm
from difftrain.train.callbacks import read_log

logger = logging.getLogger(__name__)

ROWS = Path(__file__).resolve().parent / "results" / "online_difficulty"
SEEDS = (1, 2, 3, 4, 5)
REFILL = "grpo.dynamic_sampling=true"
ARMS = {
    "uniform": ["recipe=grpo_full", f"grpo.max_steps={FULL_STEPS}"],
    "offline mid+hard": ["recipe=grpo_mid_hard"],
    "refill": ["recipe=grpo_full", REFILL],
    "learnable": ["recipe=grpo_full", "grpo.sampler=learnable"],
    "skip_dead": ["recipe=grpo_full", "grpo.sampler=skip_dead"],
    "offline + refill": ["recipe=grpo_mid_hard", REFILL],
}
"""The settings of each arm. `uniform` goes on for the comparison at equal tokens."""
WITHOUT_PROBE = ("uniform", "refill", "skip_dead")
"""These arms could be trained without probing; the probe is not part of their cost."""
SAME_SETTINGS = {"uniform": "full", "offline mid+hard": "mid+hard"}
"""Arm -> the arm of does_choosing_pay.py with the same settings."""


def arm_config(arm: str, seed: int, overrides: list[str]) -> RunConfig:
    """The settings of an arm's run with one seed, which also draws the pool."""
    seeds = [f"seed={seed}", f"data.world_seed={seed}"]
    return resolve(compose_config([*seeds, *COMMON, *ARMS[arm], *overrides]))


def from_choosing(run: ArmRun, arm: str, prompts: int) -> OnlineRun:
    """A row of does_choosing_pay.py, whose trainings take their groups as they come."""
    values = {field.name: getattr(run, field.name) for field in fields(ArmRun)} | {"arm": arm}
    dead = [1 - share for share in run.live_share]
    groups = [prompts] * len(dead)
    return OnlineRun(**values, sampled=groups, trained=groups, dead_sampled=dead, dead_trained=dead)


def run_arm(arm: str, seed: int, overrides: list[str]) -> OnlineRun:
    """Probe (once for all arms of a seed), select and train; returns the run's result row."""
    config = arm_config(arm, seed, overrides)
    if all(override.startswith("output_dir=") for override in overrides):
        for run in read_runs(CHOOSING_ROWS):
            if (run.arm, run.seed) == (SAME_SETTINGS.get(arm), seed):
                return from_choosing(run, arm, config.grpo.prompts_per_step)
    paths, world = RunPaths(config, trained=True), World()
    session = ModelSession(config.model, config.data)
    samples = difficulty.load_samples(config, paths, world)
    difficulty.probe(config, paths, world, session, samples)
    difficulty.score(config, paths, world)
    benchmarks = Benchmarks(config)
    before = {0: benchmarks.scores(session.model.model, session.model.processor)}
    session.release()
    curve_file = Path(config.output_dir) / "curves" / f"{arm}-{seed}.jsonl"
    curve_file.parent.mkdir(parents=True, exist_ok=True)
    selection = difficulty.select(config, paths, world, Arm.tuned)
    callback = CurveCallback(curve_file, benchmarks)
    grpo.run(config, paths, world, Arm.tuned, callbacks=[callback])
    log = read_log(paths.grpo(Arm.tuned))
    curve = before | read_curve(curve_file)
    if missing := {*range(0, len(log) + 1, EVAL_STEPS)} - curve.keys():
        folder = paths.grpo(Arm.tuned)
        raise RuntimeError(f"no scores at steps {sorted(missing)}: delete {folder}, and run again")
    spent = 0 if arm in WITHOUT_PROBE else probe_tokens(paths)
    return OnlineRun(
        arm=arm,
        seed=seed,
        strata=(manifest.read_manifest(paths.score) or {})["counts"],
        selected=count_selected(selection, paths),
        sft_steps=0,
        points=[
            CurvePoint(step, spent + generated_tokens(log[:step]), scores)
            for step, scores in sorted(curve.items())
        ],
        probe_tokens=spent,
        live_share=[1 - row["frac_reward_zero_std"] for row in log],
        grad_norm=[row["grad_norm"] for row in log],
        versions=manifest.versions(),
        revision=manifest.git_revision(),
        sampled=[round(row["groups_asked"]) for row in log],
        trained=[round(row.get("groups_trained", row["groups_asked"])) for row in log],
        dead_sampled=[row["zero_variance_asked"] for row in log],
        dead_trained=[row["zero_variance_trained"] for row in log],
    )


def generated_tokens(log: list[dict[str, Any]]) -> int:
    """The tokens of all rollouts of these steps, those of refused groups included."""
    return round(sum(row["generated_tokens"] for row in log))


def row_file(arm: str, seed: int) -> Path:
    """The file with the result row of one run."""
    return ROWS / f"{arm.replace(' ', '_')}-{seed}.json"


def main() -> None:
    """Run the missing arms, seed by seed, and write the page."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page from finished runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    arguments, overrides = parser.parse_known_args()
    if not any(override.startswith("output_dir=") for override in overrides):
        overrides = ["output_dir=outputs/online_difficulty", *overrides]
    if not arguments.page:
        for seed in arguments.seeds:
            for arm in arguments.arms:
                if not row_file(arm, seed).exists():
                    logger.info("seed %d: %s", seed, arm)
                    run = run_arm(arm, seed, overrides)
                    manifest.write_json(row_file(arm, seed), run.to_json())
    print(page.write(ROWS.parent, page.read_rows(ROWS)))


if __name__ == "__main__":
    main()
