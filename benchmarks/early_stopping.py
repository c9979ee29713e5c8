"""Does a probe with early stopping give every sample the label that the full probe gives it?

    python benchmarks/early_stopping.py [--output_dir DIR] [KEY=VALUE ...]

A probe generates responses (draws) to each sample's question at several mask ratios: the share of
the image that is masked. The failure ratio (PISM of Qi et al. 2026) is the first mask ratio at
which too few draws are correct, and gives the sample's stratum. The full probe generates all draws;
`ratio` stops once the failure ratio is certain, `stratum` once the stratum is. All three probes use
the same samples and seeds. Prints the result and writes benchmarks/results/early_stopping.json.
About fifteen minutes on two cores with the default samples.

Axes: R mask ratios, K draws. A table has 1 for a correct draw, 0 for another, -1 if not drawn.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from difftrain.cli.overrides import compose_config
from difftrain.config.difficulty import Until
from difftrain.config.run_config import RunConfig, resolve
from difftrain.difficulty import pism
from difftrain.difficulty.evidence import gather_evidence
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
    """Run the probes, compare every sample's label, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", default="outputs/early_stopping")
    arguments, overrides = parser.parse_known_args()
    common = [*overrides, "difficulty.extra_measures=[]"]  # no draws for other measures than PISM
    configs = {
        until: resolve(
            compose_config(
                [*common, f"output_dir={arguments.output_dir}/{until}", f"probe.until={until}"]
            )
        )
        for until in Until
    }
    session = ModelSession(configs[Until.grid].model, configs[Until.grid].data)
    ratio_R = np.array(configs[Until.grid].probe.mask_percents) / 100
    tables, draws, seconds = {}, {}, {}
    for until, config in configs.items():
        tables[until], draws[until], seconds[until] = run_probe(config, session)
    labels = {
        until: {
            key: pism.settled_stratum(table_RK, ratio_R, 1)
            if until is Until.stratum
            else pism.failure_ratio(table_RK, ratio_R)
            for key, table_RK in tables[until].items()
        }
        for until in Until
    }
    full = labels[Until.grid]
    result = {
        "samples": len(full),
        "equal_failure_ratios": sum(labels[Until.ratio][key] == full[key] for key in full),
        "equal_strata": sum(labels[Until.stratum][key] == pism.stratum(full[key]) for key in full),
        "every_early_draw_equals_the_grids": all(
            bool((early_RK == tables[Until.grid][key])[early_RK >= 0].all())
            for until in (Until.ratio, Until.stratum)
            for key, early_RK in tables[until].items()
        ),
        "draws_per_sample": {until.value: count / len(full) for until, count in draws.items()},
        "seconds": {until.value: value for until, value in seconds.items()},
        "git": manifest.git_revision(),
        "versions": manifest.versions(),
        "command": "python benchmarks/early_stopping.py " + " ".join(overrides),
    }
    manifest.write_json(RESULT, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
