"""How often does the tiny model answer samples that it was built to master, to answer sometimes, or
never?

    python benchmarks/base_accuracy.py [--output_dir DIR] [KEY=VALUE ...]

A pool of data.mix=paper has these three kinds of samples by construction, see
difftrain/shapes/pool.py. Each is answered ten times with its whole image. Prints the result and
writes benchmarks/results/base_accuracy.json, with other settings base_accuracy.json in output_dir.
A minute on one core.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

from difftrain.cli.overrides import compose_config
from difftrain.config.run_config import resolve
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.coordination import World
from difftrain.pipeline.model_session import ModelSession
from difftrain.pipeline.paths import RunPaths
from difftrain.recipes.difficulty import load_samples, probe
from difftrain.records import Rollout, Verdict, View
from difftrain.shapes.pool import built_as

RESULT = Path(__file__).parent / "results" / "base_accuracy.json"
SETTINGS = ("data.mix=paper", "data.num_samples=400", "data.world_seed=901", "seed=901",
            "difficulty=pass_rate", "difficulty.extra_measures=[]")  # fmt: skip


def main() -> None:
    """Answer, count, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", default="outputs/base_accuracy")
    arguments, overrides = parser.parse_known_args()
    output_dir = f"output_dir={arguments.output_dir}"
    config = resolve(compose_config([*SETTINGS, *overrides, output_dir]))
    paths = RunPaths(config)
    samples = load_samples(config, paths, World())
    probe(config, paths, World(), ModelSession(config.model, config.data), samples)
    correct: dict[str, list[bool]] = defaultdict(list)
    formatted: list[bool] = []
    for rollout in parquet.read_rows(paths.probe, Rollout):
        if rollout.view is View.full_image:
            correct[rollout.sample_id].append(rollout.verdict is Verdict.correct)
            formatted.append(rollout.verdict is not Verdict.unparsable)
    rates: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        rates[built_as(sample)].append(mean(correct[sample.sample_id]))
    content = {
        "settings": [*SETTINGS, *overrides],
        "readable_answers": mean(formatted),
        "kinds": {
            kind: {"samples": len(values), "accuracy": mean(values),
                   "live": mean(0 < value < 1 for value in values)}
            for kind, values in rates.items()
        },
        "versions": manifest.versions(),
        "revision": manifest.git_revision(),
    }  # fmt: skip
    manifest.write_json(Path(arguments.output_dir, RESULT.name) if overrides else RESULT, content)
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
