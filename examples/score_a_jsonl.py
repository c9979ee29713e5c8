"""Score how difficult the samples of a jsonl file are, and count the easy, medium and hard ones.

Without a file it scores 24 generated samples (drawings of colored shapes), and without a model the
tiny one that comes with difftrain. The scores are those of the measure PISM (Qi et al. 2026): the
share of the image that is masked when the model first fails.

python examples/score_a_jsonl.py [FILE.jsonl] [MODEL]
"""

import sys
from collections import Counter

import difftrain


def main() -> None:
    """Generate 4 responses per prompt, score the samples, then count them by stratum."""
    if len(sys.argv) > 1:
        samples = difftrain.load_dataset(sys.argv[1])
    else:
        samples = difftrain.load_dataset("shapes", "data.num_samples=24")
    model = difftrain.load_model(sys.argv[2] if len(sys.argv) > 2 else "tiny")
    scores = difftrain.score_samples(samples, model, "probe.draws=4")
    strata = Counter(score.stratum for score in scores if score.measure == "pism")
    for stratum, count in strata.items():
        print(f"{stratum}: {count} of {len(samples)}")


if __name__ == "__main__":
    main()
