"""Early stopping against the full grid: same seeds, same samples; are the labels the same?

    python benchmarks/early_stopping.py [--output_dir DIR] [KEY=VALUE ...]

Prints and writes benchmarks/results/early_stopping.json: samples, equal labels, draws a sample,
seconds of both. The default pool takes about ten minutes on two cores.
"""

import argparse
import json
import time
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
from difftrain.recipes import pool
from difftrain.recipes.difficulty import probe
from difftrain.records import Rollout

RESULT = Path(__file__).parent / "results" / "early_stopping.json"


def asked(config: RunConfig, asking: ModelSession) -> tuple[dict[str, np.ndarray], int, float]:
    """Tables of all samples, draws asked and seconds of a probe under these settings."""
    places = RunPaths(config)
    started = time.time()
    samples = pool.samples(config, places, World())
    probe(config, places, World(), asking, samples)
    rows = parquet.read(places.probe, Rollout)
    evidence = gather_evidence(rows, [], config.probe)
    table = {key: sample.correctness.correct_RK for key, sample in evidence.items()}
    made = manifest.read_manifest(places.probe)
    return table, len(rows), made["seconds"] if made else time.time() - started


def main() -> None:
    """Run both probes, compare every sample's failure ratio, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", default="outputs/early_stopping")
    arguments, words = parser.parse_known_args()
    common = [*words, "difficulty.extra_measures=[]"]
    early = resolve(compose_config([*common, f"output_dir={arguments.output_dir}/early"]))
    full = resolve(
        compose_config([*common, f"output_dir={arguments.output_dir}/full", "probe.until=grid"])
    )
    asking = ModelSession(early.model, early.data)
    ratios = np.array(early.probe.mask_percents) / 100
    tables_early, draws, seconds = asked(early, asking)
    tables_full, grid, grid_seconds = asked(full, asking)
    equal = sum(
        pism.failure_ratio(tables_early[key], ratios) == pism.failure_ratio(table, ratios)
        for key, table in tables_full.items()
    )
    same_draws = all(
        (tables_early[key][tables_early[key] >= 0] == table[tables_early[key] >= 0]).all()
        for key, table in tables_full.items()
    )
    result = {
        "samples": len(tables_full),
        "equal_labels": equal,
        "every_early_draw_equals_the_grids": bool(same_draws),
        "draws_per_sample": {"early": draws / len(tables_full), "full": grid / len(tables_full)},
        "seconds": {"early": seconds, "full": grid_seconds},
        "seconds_ratio": seconds / grid_seconds,
        "versions": manifest.versions(),
        "command": "python benchmarks/early_stopping.py " + " ".join(words),
    }
    manifest.write_json(RESULT, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
