"""Does the attention map of a model point at the object that the question asks for?

    python benchmarks/attention_maps.py [--samples N] [--model NAME]

Draws samples of the family `locate` ("Which tile holds the red square?"): one object is relevant,
and its tile is one image token of 16. The model answers each sample once. For the tokens inside
<answer> and for the whole response, by layer and as mean over layers, prints in how many samples
the relevant tile has the largest weight of all tiles, and its mean share of the weight on the
image. Chance is 1 of 16 tiles. A few minutes on two cores.
"""

import argparse
import json
import tempfile
from collections import defaultdict

import numpy as np

from difftrain import load_model, probe_samples
from difftrain.config.difficulty import ProbeConfig
from difftrain.images import FACTOR
from difftrain.records import Sample, Verdict
from difftrain.shapes import pool
from difftrain.view.maps import response_map

FAMILY = "locate"


def relevant_token(sample: Sample, columns: int) -> int:
    """The image token, in reading order, that covers the tile of the gold answer."""
    left, top, *_ = json.loads(sample.answer)[0]["bbox_2d"]
    return (top // FACTOR) * columns + left // FACTOR


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    samples = [pool.sample(pool.Split.pool, FAMILY, i, seed=1) for i in range(options.samples)]
    with tempfile.TemporaryDirectory() as folder:
        session = load_model(options.model)
        settings = (
            f"output_dir={folder}", "probe.mask_percents=[0]", "probe.draws=1",
            "probe.until=grid",
        )  # fmt: skip
        rollouts = {row.sample_id: row for row in probe_samples(samples, session, *settings)}
    is_brightest: dict[tuple[str, str], list[bool]] = defaultdict(list)
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in samples:
        rollout = rollouts[sample.sample_id]
        if not rollout.num_tokens:
            continue
        result = response_map(session.model, sample, rollout, ProbeConfig(), seed=1)
        token = relevant_token(sample, result["grids"][0][1])
        for group, map_LI in result["maps"].items():
            weight_LI = np.array(map_LI)
            means = {f"layer {i + 1}": weight_I for i, weight_I in enumerate(weight_LI)}
            means["inner layers"] = weight_LI[1:-1].mean(axis=0)
            means["all layers"] = weight_LI.mean(axis=0)
            for name, weight_I in means.items():
                is_brightest[group, name].append(bool(weight_I.argmax() == token))
                shares[group, name].append(float(weight_I[token] / weight_I.sum()))
    correct = sum(row.verdict is Verdict.correct for row in rollouts.values())
    print(f"{len(samples)} samples of {FAMILY}, {correct} answered correctly by {options.model}")
    print("tokens     layers         brightest  of   share of the image's weight")
    for (group, name), values in is_brightest.items():
        share = np.mean(shares[group, name])
        print(f"{group:<10} {name:<14} {np.mean(values):>8.0%} {len(values):>4}   {share:.3f}")


if __name__ == "__main__":
    main()
