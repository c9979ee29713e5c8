"""Do the difficulty measures recover what is known about generated samples?

    python studies/measure_validity.py [--output_dir DIR] [KEY=VALUE ...]

The samples are drawings with a question (difftrain/shapes/pool.py), in families: the functions that
generate them, each in its share (data.mix=even). Their truth is known: a question needs the image,
or its text alone gives the answer ("prior"), or nobody can answer it ("noise"). The measures are

* PISM (Qi et al. 2026): the first share of the image, if masked, at which the model fails
* CMAB (Qi et al. 2026): attention to the image, relative to attention to the text
* CDE (the paper RAP): accuracy with the image minus accuracy without it
* ACE (RAP): how biased attention is towards one token of the response
* DRM (RAP): one minus the accuracy with the image
* pass rate (ours): the accuracy with the image, as a posterior mean
* image gain (ours): log-probability of the gold answer with the image minus without; once for the
  answer alone, once for the generator's rationale and the answer

The script generates the tiny model's responses (rollouts) in eight steps. Each step adds what
another measure needs; finished steps are not repeated. Writes measure_validity.md, .json and
_*.svg to studies/results. Seconds are processor seconds on one thread, which other load on the
machine changes little. Under half an hour on two cores.

Axes: N samples, R mask ratios (shares of the image that are masked), K draws (responses per ratio),
M draws without the image.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import measure_validity_page
import numpy as np
import pandas as pd
from measure_validity_stats import (
    ANSWER_GROUPS,
    TITLES,
    agreement,
    confusion,
    difficulty_correlation,
    family_auc,
    pooled_rank_correlation,
    rank_correlations,
    separation,
)

from difftrain.cli.overrides import compose_config
from difftrain.config.difficulty import PismConfig
from difftrain.config.run_config import RunConfig, resolve
from difftrain.difficulty import ace, cde
from difftrain.difficulty.evidence import AnswerLikelihood, Evidence, gather_evidence
from difftrain.difficulty.pism import guess_rate, min_correct
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.probe.schedule import next_draws
from difftrain.recipes import difficulty
from difftrain.records import AnswerKind, Attention, Rollout, Sample, Score, Verdict, View
from difftrain.select import rap
from difftrain.shapes.families import GRID, LETTERS, LEVELS
from difftrain.shapes.signs import LONG, NUM_SIGNS

logger = logging.getLogger(__name__)

WITH_OURS = "difficulty.extra_measures=[cmab, cde, ace, drm, pass_rate, image_gain]"
STEPS = {
    "PISM": ["difficulty=pism", "difficulty.extra_measures=[]"],
    "and CDE, DRM": ["difficulty=all", "difficulty.extra_measures=[cde, drm]"],
    "and CMAB, ACE": ["difficulty=all"],
    "and chance": ["difficulty=all", "difficulty.pism.chance_correction=text_only"],
    "and gain": ["difficulty=all", "difficulty.pism.chance_correction=text_only", WITH_OURS],
    "gain with rationale": [
        "difficulty=all",
        "difficulty.pism.chance_correction=text_only",
        WITH_OURS,
        "difficulty.image_gain.target=rationale",
    ],
    "rectangle": ["difficulty=pism", "difficulty.extra_measures=[]", "probe.mask=rectangle"],
    "patches": ["difficulty=pism", "difficulty.extra_measures=[]", "probe.mask=patches"],
}
"""The settings of each step. The first six share one probe (a folder of rollouts), and each of them
adds what its measures still lack. "and chance" corrects PISM for correct guesses; the two steps
after it generate nothing, but pass over gold answers."""
OTHER_MASKS = ("rectangle", "patches")
"""Steps with another shape of mask. Their probes begin with a copy of the full-image rollouts."""


@dataclass(frozen=True)
class StepResult:
    """One step's samples, rollouts, attention and scores, and its cost."""

    config: RunConfig
    samples: list[Sample]
    rollouts: list[Rollout]
    attention: list[Attention]
    scores: list[Score]
    uncorrected: list[Score]
    """PISM's scores without the chance correction."""
    cost: dict[str, float] = field(default_factory=dict)


def count_rows(paths: RunPaths) -> tuple[int, int, int]:
    """How many rollouts, attention rows and likelihood rows a step's folders have.

    An attention row costs one forward pass, a likelihood row two.
    """
    rows = ((paths.probe, Rollout), (paths.attention, Attention))
    rollouts, attention = (len(parquet.read_rows(*pair)) for pair in rows)
    return rollouts, attention, len(parquet.read_rows(paths.likelihood, AnswerLikelihood))


def run_step(config: RunConfig, session: ModelSession, timing: Path, step: str) -> None:
    """Probe and score what a step still lacks, and add the cost to the timing file."""
    paths = RunPaths(config)
    if manifest.read_manifest(paths.score) is not None:
        return
    rollouts, passes, likelihoods = count_rows(paths)
    session.model  # noqa: B018  # this property loads the model, here before the clock starts
    cpu_started, wall_started = time.process_time(), time.time()
    samples = difficulty.load_samples(config, paths, World())
    difficulty.probe(config, paths, World(), session, samples)
    cpu, wall = time.process_time() - cpu_started, time.time() - wall_started
    new_rollouts, new_passes, new_likelihoods = count_rows(paths)
    earlier = read_timing(timing).get(step, {})  # of an interrupted run
    added = {
        "generations": new_rollouts - rollouts,
        "attention_passes": new_passes - passes,
        "likelihood_passes": 2 * (new_likelihoods - likelihoods),
        "cpu": cpu,
        "wall": wall,
    }
    total = {key: round(value + earlier.get(key, 0), 3) for key, value in added.items()}
    manifest.write_json(timing, {**read_timing(timing), step: total})
    difficulty.score(config, paths, World())


def copy_full_image(rollouts: Sequence[Rollout], folder: Path) -> None:
    """Copy the full-image rollouts to a new probe: they do not depend on the kind of mask."""
    full_image = [row for row in rollouts if row.view is View.full_image]
    if full_image and not parquet.parts(folder):
        parquet.write_part(folder, parquet.next_part_name(folder, 0), full_image)


def read_timing(timing: Path) -> dict[str, dict[str, float]]:
    """The cost of each step so far, summed over interrupted runs; empty if there is no file."""
    return json.loads(timing.read_text()) if timing.is_file() else {}


def run_steps(overrides: Sequence[str], folder: Path) -> dict[str, StepResult]:
    """Run all steps that are not finished, and read the results of all."""
    results: dict[str, StepResult] = {}
    timing, session = folder / "timing.json", None
    for step, settings in STEPS.items():
        config = resolve(
            compose_config([f"output_dir={folder}", "data.mix=even", *settings, *overrides])
        )
        session = session or ModelSession(config.model, config.data)
        paths = RunPaths(config)
        if step in OTHER_MASKS:
            copy_full_image(results["and chance"].rollouts, paths.probe)
        logger.info(step)
        run_step(config, session, timing, step)
        results[step] = StepResult(
            config,
            parquet.read_rows(paths.data, Sample),
            parquet.read_rows(paths.probe, Rollout),
            parquet.read_rows(paths.attention, Attention),
            parquet.read_rows(paths.score, Score),
            parquet.read_rows(paths.score / difficulty.UNCORRECTED, Score),
            read_timing(timing).get(step, {}),
        )
    return results


ANSWER_SPACES = {
    "verify": 2,
    "count": 10,
    "locate": GRID * GRID,
    "count_plus": 17,
    "bar": 2 * LEVELS - 1,
    "prior": 17,
    "noise": 900,
    "sign": NUM_SIGNS,
    "signs": NUM_SIGNS**2,
    "code": 90**2,
    "long_code": 90**LONG,
}
"""How many answers a question of a family can have (see the generators in difftrain/shapes). The
other families have answer options, or ask for a word (family `read`)."""


def answer_space(sample: Sample) -> int:
    """How many different answers a sample's question can have."""
    if sample.answer_kind is AnswerKind.choice:
        return len(sample.options)
    if sample.task == "read":
        return len(LETTERS) ** len(sample.answer)
    return ANSWER_SPACES[sample.task]


def answer_group(num_answers: int) -> str:
    """The key of ANSWER_GROUPS for this number of possible answers."""
    return next(name for name, (low, high) in ANSWER_GROUPS.items() if low <= num_answers <= high)


def measure_columns(scores: Sequence[Score], name: str, measure: str) -> dict[str, dict[str, Any]]:
    """Two columns, each by sample id: the value and the stratum of one measure."""
    rows = [score for score in scores if score.measure == measure]
    missing = 1.0 if measure == "pism" else np.nan  # PISM has no value if no mask ratio fails
    return {
        name: {row.sample_id: missing if row.value is None else row.value for row in rows},
        f"{name}_stratum": {row.sample_id: row.stratum for row in rows},
    }


def correct_shares(
    rollouts: Sequence[Rollout], view: View, num_draws: int
) -> tuple[dict[str, float], dict[str, float]]:
    """By sample, the share of correct responses among all, and among those that could be parsed.

    Counts the first `num_draws` draws of a view. The second result lacks samples without a
    response that could be parsed.
    """
    verdicts: dict[str, list[Verdict]] = {}
    for row in rollouts:
        if row.view is view and row.draw < num_draws:
            verdicts.setdefault(row.sample_id, []).append(row.verdict)
    correct = {key: rows.count(Verdict.correct) for key, rows in verdicts.items()}
    parsable = {key: len(rows) - rows.count(Verdict.unparsable) for key, rows in verdicts.items()}
    return (
        {key: correct[key] / len(rows) for key, rows in verdicts.items()},
        {key: correct[key] / parsable[key] for key in verdicts if parsable[key]},
    )


def sample_table(results: dict[str, StepResult]) -> pd.DataFrame:
    """One row per sample: its truth, each measure's value and stratum, and whether RAP selects it.

    A missing value is NaN, except that PISM's is 1.
    """
    last = results["and chance"]  # the last step that adds to the first probe
    measured: dict[str, dict[str, Any]] = {}
    measured |= measure_columns(last.scores, "pism_chance", "pism")  # with chance correction
    measured |= measure_columns(last.uncorrected, "pism", "pism")
    for kind in ("rectangle", "patches"):
        measured |= measure_columns(results[kind].scores, f"pism_{kind}", "pism")
    for measure in ("cmab", "cde", "ace", "drm"):
        measured |= measure_columns(last.scores, measure, measure)
    for measure in ("pass_rate", "image_gain"):
        measured |= measure_columns(results["and gain"].scores, measure, measure)
    with_rationale = results["gain with rationale"].scores
    measured |= measure_columns(with_rationale, "image_gain_rationale", "image_gain")
    # The generator sets requires_image, and gen_difficulty (0 easiest, 1 hardest).
    truth = {
        "task": {s.sample_id: s.task for s in last.samples},
        "requires_image": {s.sample_id: s.requires_image for s in last.samples},
        "gen_difficulty": {s.sample_id: s.gen_difficulty for s in last.samples},
        "answers": {s.sample_id: answer_space(s) for s in last.samples},
    }
    frame = pd.DataFrame({**truth, **measured})
    frame["group"] = frame["answers"].map(answer_group)
    truths = {True: "needs the image", False: "prior"}
    # requires_image is None for noise, which nobody can answer.
    frame["truth"] = [truths.get(required, "noise") for required in frame["requires_image"]]
    frame["solved"] = frame["pism_stratum"] != "unsolved"
    first = [row for row in last.rollouts if row.view is View.full_image and row.draw == 0]
    frame["length"] = pd.Series({row.sample_id: row.num_tokens for row in first})
    num_draws = last.config.probe.cde_rollouts
    for view, name in ((View.full_image, "with_image"), (View.text_only, "text_only")):
        of_all, of_parsable = correct_shares(last.rollouts, view, num_draws)
        frame[name], frame[f"{name}_parsable"] = pd.Series(of_all), pd.Series(of_parsable)
    # This name is a part of the seed of bootstrap intervals; "readable" means parsable.
    frame["cde_readable"] = frame["with_image_parsable"] - frame["text_only_parsable"]
    settings = last.config.difficulty
    bias_N = [None if np.isnan(value) else float(value) for value in frame["ace"]]
    # CDE keeps samples whose accuracy depends on the image, ACE those without attention bias.
    frame["cde_kept"] = [
        cde.is_kept(discrepancy, settings.cde.lambda_c) for discrepancy in frame["cde"]
    ]
    frame["ace_kept"] = [not ace.is_biased(bias, settings.ace.lambda_a) for bias in bias_N]
    selections = rap.choose(
        list(frame.index),
        list(frame["cde"]),
        bias_N,
        list(frame["drm"]),
        num_draws,
        settings.cde.lambda_c,
        settings.ace.lambda_a,
    )
    frame["rap"] = frame.index.isin([selection.sample_id for selection in selections])
    return frame


Requests = frozenset[tuple[str, int, int]]
"""Rollouts of one sample as (kind, row, draw). The kind "ladder" has the image: row 0 is unmasked,
and the other rows are growing mask ratios. The kind "text_only" has no image and only row 0."""


def ladder_requests(correct_RK: np.ndarray, minimum: int) -> Requests:
    """The draws after which PISM's value is certain: the first mask ratio at which the model fails.

    They are found by running the probe's schedule again over the table of a finished probe. A cell
    of the table is 1 if the draw is correct, 0 if not, -1 if it was not drawn. `minimum` is how
    many draws must be correct at a ratio that passes. Raises ValueError if the table lacks one of
    the draws.
    """
    replayed_RK, requests = np.full_like(correct_RK, -1), set()  # -1: not drawn
    while cells := next_draws(replayed_RK, minimum=minimum):
        for row, draw in cells:
            if correct_RK[row, draw] < 0:
                raise ValueError(f"draw {draw} of row {row} was not probed")
            replayed_RK[row, draw] = correct_RK[row, draw]
            requests.add(("ladder", row, draw))
    return frozenset(requests)


def needed_requests(evidence: Evidence, pism: PismConfig, cde_rollouts: int) -> dict[str, Requests]:
    """The rollouts that each measure needs for one sample.

    The key "PISM, plain and chance-aware" has the rollouts for both of PISM's values: without and
    with the correction for correct guesses.
    """
    correct_RK = evidence.correct_RK
    num_draws = correct_RK.shape[1]
    correct_draws = np.flatnonzero(correct_RK[0] == 1)
    with_image = frozenset(("ladder", 0, draw) for draw in range(cde_rollouts))
    text_only = frozenset((str(View.text_only), 0, draw) for draw in range(cde_rollouts))
    # How many draws must be correct at a ratio that passes, without and with the correction.
    minimum = min_correct(num_draws, pism.tau)
    corrected_minimum = min_correct(
        num_draws, pism.tau, guess_rate(evidence.text_only_M), pism.alpha
    )
    uncorrected_requests = ladder_requests(correct_RK, minimum)
    # CMAB is measured on the first correct response, so it needs the draws up to that response.
    num_until_correct = int(correct_draws[0]) + 1 if len(correct_draws) else num_draws
    requests = {
        "PISM": uncorrected_requests,
        "PISM, plain and chance-aware": uncorrected_requests
        | ladder_requests(correct_RK, corrected_minimum)
        | text_only,
        "CMAB": frozenset(("ladder", 0, draw) for draw in range(num_until_correct)),
        "CDE": with_image | text_only,
        "ACE": frozenset({("ladder", 0, 0)}),
        "DRM": with_image,
        "pass rate": frozenset(("ladder", 0, draw) for draw in range(num_draws)),
        "image gain": frozenset[tuple[str, int, int]](),
    }
    measures = ("PISM", "CMAB", "CDE", "ACE", "DRM")
    together = frozenset[tuple[str, int, int]]().union(*map(requests.get, measures))
    return {**requests, "all together": together}


def attention_passes(evidence: Iterable[Evidence]) -> dict[str, int]:
    """The number of attention passes: forward passes that record attention to a given response.

    CMAB needs one over a sample's first correct response, ACE one over its first response.
    """
    correct_draws = [np.flatnonzero(sample.correct_RK[0] == 1) for sample in evidence]
    num_cmab, num_ace = sum(len(draws) > 0 for draws in correct_draws), len(correct_draws)
    num_not_shared = sum(len(draws) > 0 and draws[0] != 0 for draws in correct_draws)
    return {"CMAB": num_cmab, "ACE": num_ace, "all together": num_ace + num_not_shared}


def costs(results: dict[str, StepResult]) -> dict[str, dict[str, float]]:
    """Rollouts, forward passes and processor seconds of each measure; `ratio` is relative to PISM.

    Seconds are counts times the average cost of a rollout or of an attention pass.
    """
    last = results["and chance"]  # the last step that adds to the first probe
    probe = last.config.probe
    evidence = gather_evidence(last.rollouts, last.attention, probe)
    rollouts: dict[str, int] = {}
    for sample in evidence.values():
        requests = needed_requests(sample, last.config.difficulty.pism, probe.cde_rollouts)
        for name, measure_requests in requests.items():
            rollouts[name] = rollouts.get(name, 0) + len(measure_requests)
    steps = [results[step].cost for step in ("PISM", "and CDE, DRM", "and chance")]
    rollout_seconds = sum(s["cpu"] for s in steps) / sum(s["generations"] for s in steps)
    attention = results["and CMAB, ACE"].cost
    pass_seconds = attention["cpu"] / attention["attention_passes"]
    passes = attention_passes(evidence.values())
    seconds = {name: count * pass_seconds for name, count in passes.items()}
    likelihood = results["and gain"].cost
    passes["image gain"] = int(likelihood["likelihood_passes"])
    seconds["image gain"] = likelihood["cpu"]
    return {
        name: {
            "rollouts": count,
            "per_sample": count / len(evidence),
            "forward_passes": passes.get(name, 0),
            "seconds": count * rollout_seconds + seconds.get(name, 0),
            "ratio": count / rollouts["PISM"],
        }
        for name, count in rollouts.items()
    }


RESULTS = Path(__file__).resolve().parent / "results"
COMPARED = ("pism", "pism_chance", "cmab", "cde", "ace", "drm", "pass_rate", "image_gain",
            "image_gain_rationale")  # fmt: skip
"""The measures whose values the page compares with one another."""
STRATIFYING = ("pism", "pism_chance", "pism_rectangle", "pism_patches", "cmab", "drm", "pass_rate")
"""The measures that put samples into strata."""
STRATA = ("easy", "medium", "hard", "unsolved")


def count_strata(frame: pd.DataFrame, name: str) -> dict[str, int]:
    """How many samples one measure puts into each stratum."""
    return {stratum: int((frame[f"{name}_stratum"] == stratum).sum()) for stratum in STRATA}


def decisions(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By truth: the strata counts of each measure, and how many samples CDE, ACE and RAP keep."""
    by_truth: dict[str, dict[str, Any]] = {}
    for truth in ("needs the image", "prior", "noise"):
        rows = frame[frame["truth"] == truth]
        if not rows.empty:
            by_truth[truth] = {
                "n": len(rows),
                "solved": int(rows["solved"].sum()),
                **{name: count_strata(rows, name) for name in STRATIFYING},
                **{name: int(rows[name].sum()) for name in ("cde_kept", "ace_kept", "rap")},
                "correct_text_only": float(rows["text_only"].mean()),
            }
    return by_truth


def families(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each family that needs the image, CDE's and PISM's AUC against the prior samples."""
    by_family = {
        str(task): {
            "n": len(rows),
            "with_image": float(rows["with_image"].mean()),
            "text_only": float(rows["text_only"].mean()),
            "cde": family_auc(frame, "cde", str(task)),
            "pism": family_auc(frame, "pism", str(task)),
        }
        for task, rows in frame[frame["truth"] == "needs the image"].groupby("task")
    }
    return dict(sorted(by_family.items(), key=lambda item: -item[1]["with_image"]))


def answer_spaces(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """PISM's strata with and without the chance correction, by the number of possible answers."""
    needs_image = frame[frame["truth"] == "needs the image"]
    by_group = {}
    for group in ANSWER_GROUPS:
        rows = needs_image[needs_image["group"] == group]
        if not rows.empty:
            by_group[group] = {
                "n": len(rows),
                "families": sorted(map(str, rows["task"].unique())),
                # How often random guesses alone pass a mask ratio. There are ten draws at a ratio,
                # and it passes if at least one is correct (the defaults of the probe and of PISM).
                "chance": float((1 - (1 - 1 / rows["answers"].astype(float)) ** 10).mean()),
                "text_only": float(rows["text_only"].mean()),
                "changed": int((rows["pism_stratum"] != rows["pism_chance_stratum"]).sum()),
                **{name: count_strata(rows, name) for name in ("pism", "pism_chance")},
            }
    return by_group


def measure(results: dict[str, StepResult], frame: pd.DataFrame) -> dict[str, Any]:
    """All numbers of measure_validity.md."""
    correlations = {name: difficulty_correlation(frame, name) for name in TITLES}
    rho, num_samples = rank_correlations(frame, COMPARED)
    confusions = {
        TITLES[name]: confusion(frame, "pism", name)
        for name in ("cmab", "drm", "pass_rate", "pism_chance")
    }
    with_ace = frame.dropna(subset=["ace"])
    return {
        "separation": {
            name: {
                "all": separation(frame, name, solved_only=False),
                "solved": separation(frame, name, solved_only=True),
            }
            for name in TITLES
        },
        "families": families(frame),
        "prior": frame.loc[frame["truth"] == "prior", ["with_image", "text_only"]].mean().to_dict(),
        "gen_difficulty": {name: total for name, (total, _) in correlations.items()},
        "gen_difficulty_by_family": {name: by_task for name, (_, by_task) in correlations.items()},
        "compared": list(COMPARED),
        "rho": rho,
        "rho_samples": num_samples,
        "confusion": confusions,
        "agreement": {name: agreement(table) for name, table in confusions.items()},
        "decisions": decisions(frame),
        "answer_spaces": answer_spaces(frame),
        "ace_with_length": pooled_rank_correlation(
            [(with_ace["ace"].to_numpy(), with_ace["length"].to_numpy())]
        ),
        "cost": costs(results),
        "step_cost": {step: result.cost for step, result in results.items()},
        "ratios": [percent / 100 for percent in results["PISM"].config.probe.mask_percents],
    }


def to_json(value: Any) -> Any:
    """A result in types that JSON has; NaN becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, pd.DataFrame):
        return {str(row): to_json(dict(cells)) for row, cells in value.iterrows()}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item) for item in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), 6)
    return value


def main() -> None:
    """Generate responses, compute the numbers, and write page, figures and JSON."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/measure_validity"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments, overrides = parser.parse_known_args()
    results = run_steps(overrides, arguments.output_dir)
    frame = sample_table(results)
    measured = measure(results, frame)
    command = " ".join(["python studies/measure_validity.py", *overrides])
    measure_validity_page.write_figures(measured, frame, arguments.results)
    page = measure_validity_page.page(measured, len(frame), command)
    (arguments.results / "measure_validity.md").write_text(page)
    header = {"command": command, "samples": len(frame), "versions": manifest.versions()}
    content = {**header, **to_json(measured)}
    manifest.write_json(arguments.results / "measure_validity.json", content)
    print(page)


if __name__ == "__main__":
    main()
