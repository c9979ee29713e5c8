"""Does choosing samples pay, where most of a pool brings no gradient?

    python studies/does_choosing_pay.py --pilot           # seeds that a 2-point difference needs
    python studies/does_choosing_pay.py [--seeds 1 2 ...] # the arms of these seeds, then the page
    python studies/does_choosing_pay.py --page            # only the page

The pools are built with the shares of easy, medium and hard, and unsolved samples of Qi et al. 2026
(data.mix=paper). Each seed has a pool of its own, which all its arms share, as they share one
probe. Arms are compared after the same number of optimizer steps; the full pool is trained on for
longer. The six shapes/ benchmarks are answered every EVAL_STEPS steps, so one run gives its score
at equal steps and at equal generated tokens. does_choosing_pay_plan.md says what is compared and
how; it was committed before the runs.

A finished run leaves one small file in studies/results/does_choosing_pay/, and is not repeated. A
killed run continues from its last checkpoint. Two processes may run different seeds. With settings
other than output_dir these files are written below output_dir, apart from those of the plan.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import does_choosing_pay_page as page
from does_choosing_pay_rows import (
    EQUAL_STEPS,
    FURTHER,
    MAIN,
    NUM_SEEDS,
    TWO_STAGE,
    ArmRun,
    CurvePoint,
    read_runs,
)
from transformers import TrainerCallback

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.evaluate import score_item
from difftrain.evaluate.generate import StoredResponse, pixel_budgets, stream_responses
from difftrain.evaluate.loading import load_items
from difftrain.evaluate.write_results import prediction
from difftrain.model.engines.hf import HfEngine
from difftrain.model.loading import LoadedModel
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes import difficulty, grpo, sft_then_grpo
from difftrain.records import Arm, Rollout, Selection, TrainStage
from difftrain.select import EmptySelectionError
from difftrain.shapes import benchmarks as shapes_benchmarks
from difftrain.train.callbacks import read_log

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "studies" / "results" / "does_choosing_pay"
NUM_SAMPLES, FULL_STEPS, SFT_STEPS, EVAL_STEPS, ITEMS = 320, 320, 40, 20, 60
"""Samples of a pool; optimizer steps on the full pool, and of SFT; steps between two evaluations;
items of each benchmark. Other runs have EQUAL_STEPS steps, SFT's included."""
LEARNING_RATE = 3e-5  # less than the demo's, because runs have eight times as many steps
PILOT_SEEDS = (1001, 1002)
COMMON = [
    "data.mix=paper", f"data.num_samples={NUM_SAMPLES}", "probe.until=stratum",
    "probe.retest_samples=0", "grpo.eval_samples=0",
    f"grpo.max_steps={EQUAL_STEPS}", f"grpo.save_steps={EVAL_STEPS}", f"evaluate.limit={ITEMS}",
    f"grpo.learning_rate={LEARNING_RATE}", f"sft.learning_rate={LEARNING_RATE}",
]  # fmt: skip
TWO_STAGES = [f"sft.max_steps={SFT_STEPS}", f"grpo.max_steps={EQUAL_STEPS - SFT_STEPS}"]
ARMS = {
    "mid+hard": ["recipe=grpo_mid_hard"],
    "random": ["recipe=grpo_random"],
    "full": ["recipe=grpo_full", f"grpo.max_steps={FULL_STEPS}"],
    "hard": ["recipe=grpo_hard"],
    "SFT(mid)+GRPO(hard)": ["recipe=sft_mid_grpo_hard", *TWO_STAGES],
    "SFT(hard)+GRPO(mid)": ["recipe=sft_hard_grpo_mid", *TWO_STAGES],
    "unsolved": ["recipe=grpo_unsolved"],
    "RAP": ["recipe=rap", "difficulty=rap"],
    "CMAB mid+hard": ["recipe=grpo_mid_hard", "difficulty=cmab"],
}
"""The settings of each arm. `random` has as many samples as `mid+hard` of the same pool."""
LEFT_OUT = ".left_out"
"""Suffix of the file beside the result rows that says why a run has none."""
WITHOUT_PROBE = ("full", "random")
"""These arms could be trained without probing; the probe is not part of their cost."""


@dataclass(frozen=True)
class Benchmarks:
    """Answers the six shapes/ benchmarks with a model that is being trained."""

    config: RunConfig

    def scores(self, model: Any, processor: Any) -> dict[str, list[float]]:
        """By benchmark: the score of each of its items, in order."""
        config = self.config.evaluate
        items = {item.key: item for item in load_items(config)}
        pixels = self.config.data.min_pixels, self.config.data.max_pixels
        was_training = model.training
        engine = HfEngine(LoadedModel(model.eval(), processor), self.config.model)
        keyed = [((*key, ""), item) for key, item in items.items()]
        rows = list(stream_responses(engine, keyed, config, pixel_budgets(config, pixels)))
        model.train(was_training)
        by_key = {(row.benchmark, row.item_id): self._score(row, items) for row in rows}
        scores: dict[str, list[float]] = {}
        for key in items:
            scores.setdefault(key[0], []).append(by_key[key])
        return scores

    def _score(self, row: StoredResponse, items: dict[tuple[str, str], Any]) -> float:
        text = None if row.response is None else prediction(row.response, self.config.evaluate)
        item = items[row.benchmark, row.item_id].row
        judge = shapes_benchmarks.judge if row.benchmark.endswith("MMVet") else None
        score = score_item(row.benchmark, text, item, judge, self.config.evaluate.rules)
        if score is None:
            raise RuntimeError(f"{row.benchmark} {row.item_id}: no score: {row.error}")
        return score


class CurveCallback(TrainerCallback):
    """Appends the benchmarks' scores to a file every EVAL_STEPS optimizer steps."""

    def __init__(self, file: Path, benchmarks: Benchmarks) -> None:
        self.file, self.benchmarks = file, benchmarks
        if file.exists():  # a kill may have left a part of a line, to which the next would be added
            text = file.read_text()
            file.write_text(text[: text.rfind("\n") + 1])

    def on_step_end(self, args: Any, state: Any, *_: Any, **objects: Any) -> None:
        if state.global_step % EVAL_STEPS == 0:
            scores = self.benchmarks.scores(objects["model"], objects["processing_class"])
            with self.file.open("a") as file:
                file.write(json.dumps({"step": state.global_step, "scores": scores}) + "\n")


def read_curve(file: Path) -> dict[int, dict[str, list[float]]]:
    """Step -> scores. A step that a killed run evaluated twice counts once."""
    text = file.read_text() if file.exists() else ""
    complete = text[: text.rfind("\n") + 1]  # a kill may leave a part of a line
    return {row["step"]: row["scores"] for row in map(json.loads, complete.splitlines())}


def arm_config(arm: str, seed: int, overrides: list[str]) -> RunConfig:
    """The settings of an arm's run with one seed, which also draws the pool."""
    own = [f"seed={seed}", f"data.world_seed={seed}", *COMMON, *ARMS[arm], *overrides]
    return resolve(compose_config(own))


def probe_tokens(paths: RunPaths) -> int:
    """Tokens generated by the probe."""
    return sum(rollout.num_tokens for rollout in parquet.read_rows(paths.probe, Rollout))


def run_arm(arm: str, seed: int, overrides: list[str]) -> ArmRun:
    """Probe (once for all arms of a seed), select and train; returns the run's result row."""
    config = arm_config(arm, seed, overrides)
    paths, world = RunPaths(config, trained=True), World()
    session = ModelSession(config.model, config.data)
    samples = difficulty.load_samples(config, paths, world)
    difficulty.probe(config, paths, world, session, samples)
    difficulty.score(config, paths, world)
    strata = (manifest.read_manifest(paths.score) or {})["counts"]
    benchmarks = Benchmarks(config)
    before = {0: benchmarks.scores(session.model.model, session.model.processor)}
    session.release()
    curve_file = Path(config.output_dir) / "curves" / f"{arm}-{seed}.jsonl"
    curve_file.parent.mkdir(parents=True, exist_ok=True)
    callback = CurveCallback(curve_file, benchmarks)
    recipe = grpo
    if TrainStage.sft in config.stages:
        sft_then_grpo.select_sft(config, paths, world, Arm.tuned)
        recipe = sft_then_grpo
    selection = difficulty.select(config, paths, world, Arm.tuned)
    recipe.run(config, paths, world, Arm.tuned, callbacks=[callback])
    curve = before | read_curve(curve_file)
    log = read_log(paths.grpo(Arm.tuned))
    spent = 0 if arm in WITHOUT_PROBE else probe_tokens(paths)
    return ArmRun(
        arm=arm,
        seed=seed,
        strata=strata,
        selected=count_selected(selection, paths),
        sft_steps=SFT_STEPS if recipe is sft_then_grpo else 0,
        points=list(curve_points(curve, log, config, spent)),
        probe_tokens=spent,
        live_share=[1 - row["frac_reward_zero_std"] for row in log],
        grad_norm=[row["grad_norm"] for row in log],
        versions=manifest.versions(),
        revision=manifest.git_revision(),
    )


def count_selected(selection: list[Selection], paths: RunPaths) -> int:
    """The number of samples that the run trains on in all its stages."""
    ids = {row.sample_id for row in selection}
    for folder in paths.selections(Arm.tuned):
        ids |= {row.sample_id for row in parquet.read_rows(folder, Selection)}
    return len(ids)


def curve_points(
    curve: dict[int, dict[str, list[float]]],
    log: list[dict[str, float]],
    config: RunConfig,
    spent: int,
) -> Iterator[CurvePoint]:
    """The curve with the tokens generated until each step, those of the probe (`spent`) first."""
    completions = config.grpo.prompts_per_step * config.grpo.num_generations
    for step, scores in sorted(curve.items()):
        lengths = [row["completions/mean_length"] for row in log[:step]]
        yield CurvePoint(step, spent + round(completions * sum(lengths)), scores)


def row_file(folder: Path, arm: str, seed: int) -> Path:
    """The file with the result row of one run."""
    return folder / f"{arm.replace(' ', '_')}-{seed}.json"


def planned(arms: list[str], seeds: list[int]) -> list[tuple[str, int]]:
    """(arm, seed) in the order in which they are run: first the seeds that all main arms have."""
    groups = enumerate((MAIN, TWO_STAGE, FURTHER))
    group_of = {arm: number for number, group in groups for arm in group}
    pairs = [
        (arm, seed)
        for seed in seeds
        for arm in arms
        if seed <= NUM_SEEDS[arm] or seed in PILOT_SEEDS
    ]
    return sorted(pairs, key=lambda pair: (pair[1] > NUM_SEEDS["full"], group_of[pair[0]], pair[1]))


def run_missing(folder: Path, arms: list[str], seeds: list[int], overrides: list[str]) -> None:
    """Run what has no result row in this folder yet."""
    for arm, seed in planned(arms, seeds):
        row = row_file(folder, arm, seed)
        if row.exists() or row.with_suffix(LEFT_OUT).exists():
            continue
        logger.info("seed %d: %s", seed, arm)
        try:
            run = run_arm(arm, seed, overrides)
        except EmptySelectionError as error:
            logger.warning("seed %d: %s is left out: %s", seed, arm, error)
            manifest.write_text(row.with_suffix(LEFT_OUT), f"{error}\n")
            continue
        manifest.write_json(row, run.to_json())


def main() -> None:
    """Run the missing arms and write the page."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pilot", action="store_true", help="two arms of the two pilot seeds")
    parser.add_argument("--page", action="store_true", help="write the page from finished runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 28)))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    arguments, overrides = parser.parse_known_args()
    output_dir = Path("outputs/does_choosing_pay")
    for override in overrides:
        if override.startswith("output_dir="):
            output_dir = Path(override.removeprefix("output_dir="))
    is_planned = all(override.startswith("output_dir=") for override in overrides)
    rows = ROWS if is_planned else output_dir / "results" / "rows"
    rows.mkdir(parents=True, exist_ok=True)
    overrides.append(f"output_dir={output_dir}")
    if arguments.pilot:
        run_missing(rows, ["mid+hard", "random"], list(PILOT_SEEDS), overrides)
    elif not arguments.page:
        run_missing(rows, arguments.arms, arguments.seeds, overrides)
    runs = read_runs(rows)
    power = page.power([run for run in runs if run.seed in PILOT_SEEDS])
    logger.info("%s", power.sentence())
    if not arguments.pilot:
        planned_runs = [run for run in runs if run.seed not in PILOT_SEEDS]
        report_folder = page.REPORT_FOLDER if is_planned else None
        left_out = sorted(path.stem for path in rows.glob(f"*{LEFT_OUT}"))
        print(page.write(rows.parent, planned_runs, power, report_folder, left_out))


if __name__ == "__main__":
    main()
