"""Does CDE tell samples that need the picture from prior ones, once the model can answer them?

    python benchmarks/cde_by_skill.py [--artefacts DIR] [KEY=VALUE ...]

Trains the tiny model as the demo does, then asks the shipped and the trained model about a pool
twice as large, leaving out what was trained on. Writes benchmarks/results/cde_by_skill.md and
.json: the AUC among samples that are right with the picture at least so often. About eight minutes
on two cores; finished steps are not redone.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from metrology_truth import auc, interval

from difftrain import artefacts, lineage
from difftrain.places import TUNED, Places
from difftrain.records import Measure, Pick, Sample, Score
from difftrain.settings import resolve
from launch.words import read

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FLOORS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Right answers out of all with the picture, at least so many."""
ASKING = (
    "difficulty=rap",
    "difficulty.also=[cde]",
    "data.pool=800",
    "probe.again=0",
    "probe.temperature=0.7",
)


def made(launcher: str, words: list[str]) -> Path:
    """The folder that a launcher says it made."""
    command = [sys.executable, str(ROOT / "launch" / f"{launcher}.py"), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip().splitlines()[-1].removeprefix("made: "))


def separations(samples: list[Sample], scores: list[Score], unseen: set[str]) -> list[dict]:
    """For each floor, the AUC of D with its 95 % bootstrap interval, and how many samples."""
    value = {(each.measure, each.sample_id): each.value for each in scores}
    found = []
    for floor in FLOORS:
        sides: dict[bool, list[float]] = {True: [], False: []}
        for sample in samples:
            if sample.needs_picture is None or sample.sample_id not in unseen:
                continue
            failed = value[Measure.drm, sample.sample_id]
            discrepancy = value[Measure.cde, sample.sample_id]
            if failed is None or discrepancy is None:
                raise ValueError(f"{sample.sample_id} has no score")
            if 1 - failed >= floor - 1e-9:
                sides[sample.needs_picture].append(discrepancy)
        one, two = np.array(sides[True]), np.array(sides[False])
        cell: dict = {"floor": floor, "needs_picture": len(one), "prior": len(two), "auc": None}
        if len(one) and len(two):
            low, high = interval(
                lambda rng, one=one, two=two: auc(
                    rng.choice(one, len(one)), rng.choice(two, len(two))
                ),
                f"cde {floor}",
            )
            cell |= {"auc": auc(one, two), "low": low, "high": high}
        found.append(cell)
    return found


def told(cell: dict) -> str:
    """An AUC with its interval and the numbers of samples."""
    counts = f"{cell['needs_picture']} / {cell['prior']}"
    if cell["auc"] is None:
        return f"one side is empty ({counts})"
    return f"{cell['auc']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}] ({counts})"


def page(result: dict) -> str:
    """The result as Markdown."""
    shipped, trained = result["shipped"], result["trained"]
    lines = [
        "# CDE, and what the model can do",
        "",
        f"`{result['command']}`",
        "",
        "AUC of CDE's D, samples that need the picture over prior samples (the text alone gives",
        "the answer), M = 5, temperature 0.7, with 95 % bootstrap intervals; in brackets how many",
        "of either kind. Samples of the training set are left out for both models. The shipped",
        "model leaves out the answer's tags in half its answers, which count as wrong with and",
        "without the picture; forty steps of GRPO have taught the other to write them.",
        "",
        "| right with the picture, at least | shipped tiny model | trained tiny model |",
        "|---|---|---|",
        *(
            f"| {one['floor']:.0%} | {told(one)} | {told(two)} |"
            for one, two in zip(shipped, trained, strict=True)
        ),
        "",
        "What the model never answers has D = 0, as a prior sample has: CDE cannot tell `needs",
        "the picture and I cannot do it` from `does not need it`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Train, ask both models, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artefacts", default="artefacts/cde_by_skill")
    arguments, words = parser.parse_known_args()
    common = [*words, f"artefacts={arguments.artefacts}"]
    run = made("train", common)
    config = resolve(read(common))
    picks = artefacts.read(Places(config).select(TUNED), Pick)
    trained_on = {pick.sample_id for pick in picks}
    result: dict = {"command": " ".join(["python benchmarks/cde_by_skill.py", *words])}
    trained = ["model=tiny", f"model.name={run / 'checkpoint'}"]
    for name, model in (("shipped", []), ("trained", trained)):
        asked = [*common, *ASKING, *model]
        scores = artefacts.read(made("score", asked), Score)
        samples = artefacts.read(Places(resolve(read(asked))).data, Sample)
        unseen = {sample.sample_id for sample in samples} - trained_on
        result[name] = separations(samples, scores, unseen)
    result["versions"] = lineage.versions()
    lineage.write_json(RESULTS / "cde_by_skill.json", result)
    (RESULTS / "cde_by_skill.md").write_text(page(result))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
