"""Select the medium and hard ones of 24 generated samples, and write a line of JSON for each.

A sample is harder if the model already fails when a smaller share of the image is masked.

python examples/select_and_export.py selection.jsonl
"""

import json
import sys
from pathlib import Path

import difftrain


def main() -> None:
    """Score 24 drawings of colored shapes, select two strata, write one row per sample."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "selection.jsonl")
    samples = difftrain.load_dataset("shapes", "data.num_samples=24")
    scores = difftrain.score_samples(samples, difftrain.load_model("tiny"), "probe.draws=4")
    selections = difftrain.select_samples(scores, "select.strata=[medium,hard]")
    questions = {sample.sample_id: sample.question for sample in samples}
    with path.open("w") as file:
        for selection in selections:
            row = {
                "sample_id": selection.sample_id,
                "question": questions[selection.sample_id],
                "reason": selection.reason,
            }
            file.write(json.dumps(row) + "\n")
    print(f"{len(selections)} of {len(samples)} samples written to {path}")


if __name__ == "__main__":
    main()
