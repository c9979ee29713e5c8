"""Does a probe with early stopping give every sample the label that the full probe gives it?

    python benchmarks/early_stopping.py [--output_dir DIR] [KEY=VALUE ...]

A probe generates responses (draws) to each sample's question at several mask ratios: the share of
the image that is masked. The label is the sample's failure ratio (PISM of Qi et al. 2026): the
first mask ratio at which too few draws are correct. The full probe generates all draws; early
stopping leaves out the draws that cannot change the label. Both probes use the same samples and
seeds. Prints the result and writes it to benchmarks/results/early_stopping.json. About ten minutes
on two cores with the default samples.

Axes: R mask ratios, K draws. A table has 1 for a correct draw, 0 for another, -1 if not drawn.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import RunConfig, resolve
from difftrain.difficulty import pism
from difftrain.difficulty.score import gather_evidence
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes.difficulty import load_samples, probe
from difftrain.records import Rollout

RESULT = Path(__file__).parent / "results" / "early_stopping.json"


def run_probe(config: RunConfig, session: ModelSession) -> tuple[dict[str, np.ndarray], int, float]:
    """Run a probe; returns each sample's R x K table, the number of draws, and the seconds."""
    paths = RunPaths(config)
    samples = load_samples(config, paths, World())
    probe(config, paths, World(), session, samples)
    rollouts = parquet.read_rows(paths.probe, Rollout)
    evidence = gather_evidence(rollouts, [], config.probe)  # PISM needs no attention rows
    tables = {key: sample.correct_RK for key, sample in evidence.items()}
    probe_manifest = manifest.read_manifest(paths.probe)
    assert probe_manifest is not None, "the probe has not finished"
    return tables, len(rollouts), probe_manifest["seconds"]


def main() -> None:
    """Run both probes, compare every sample's failure ratio, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", default="outputs/early_stopping")
    arguments, overrides = parser.parse_known_args()
    folder = arguments.output_dir
    common = [*overrides, "difficulty.extra_measures=[]"]  # no draws for other measures than PISM
    # The default probe.until stops early; "grid" generates every draw at every mask ratio.
    early = resolve(compose_config([*common, f"output_dir={folder}/early"]))
    full = resolve(compose_config([*common, f"output_dir={folder}/full", "probe.until=grid"]))
    session = ModelSession(early.model, early.data)
    ratio_R = np.array(early.probe.mask_percents) / 100
    early_tables, early_draws, early_seconds = run_probe(early, session)
    full_tables, full_draws, full_seconds = run_probe(full, session)
    pairs = [(early_tables[key], table) for key, table in full_tables.items()]
    num_samples = len(pairs)
    result = {
        "samples": num_samples,
        "equal_labels": sum(
            pism.failure_ratio(early_RK, ratio_R) == pism.failure_ratio(full_RK, ratio_R)
            for early_RK, full_RK in pairs
        ),
        "every_early_draw_equals_the_grids": all(
            bool((early_RK == full_RK)[early_RK >= 0].all()) for early_RK, full_RK in pairs
        ),
        "draws_per_sample": {"early": early_draws / num_samples, "full": full_draws / num_samples},
        "seconds": {"early": early_seconds, "full": full_seconds},
        "seconds_ratio": early_seconds / full_seconds,
        "versions": manifest.versions(),
        "command": "python benchmarks/early_stopping.py " + " ".join(overrides),
    }
    manifest.write_json(RESULT, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
