"""Does training on hard samples help, and more than training on random samples?

    python benchmarks/demo_gain.py [--seeds 1 2 3] [KEY=VALUE ...]

Runs launch/train.py once per seed; finished stages are not repeated. By default a run trains the
tiny model that comes with difftrain on drawings of colored shapes, and evaluates three models on
six benchmarks of such drawings, whose names begin with shapes/: the base model, the tuned model
(trained on hard samples) and the control (trained on as many random samples). A sample is hard if
the model can answer it, but fails as soon as 40 % of the image or less is masked. Writes the scores
to benchmarks/results/demo_gain.md and .json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from difftrain.pipeline import manifest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def run_seed(seed: int, overrides: list[str]) -> dict:
    """Train with one seed; returns the content of its report.json."""
    command = [sys.executable, str(ROOT / "launch" / "train.py"), "control=random", f"seed={seed}"]
    done = subprocess.run([*command, *overrides], stdout=subprocess.PIPE, text=True, check=True)
    # The last line of launch/train.py is `output: FOLDER`.
    folder = Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))
    return json.loads((folder / "report.json").read_text())


def mean_score(report: dict, arm: str) -> float:
    """The unweighted mean over the shapes/ benchmarks; `arm` is base, tuned or control.

    The overrides may add other benchmarks, such as MMMU; their scores are left out.
    """
    scores = [cell["score"] for name, cell in report[arm].items() if name.startswith("shapes/")]
    return statistics.mean(scores)


def format_points(value: float) -> str:
    """A score of 0 to 1 as `41.2`, in points of 100."""
    return f"{100 * value:.1f}"


def format_difference(difference: dict) -> str:
    """A paired difference as `+7.1 [+3.0, +11.2]`: its mean and 95 % interval in points."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(
        *(100 * difference[key] for key in ("mean", "low", "high"))
    )


def page(reports: dict[int, dict], command: str) -> str:
    """The content of demo_gain.md: a table with one row per seed, and the range of differences.

    A difference is a mean over all benchmarks that a run evaluates: by default, the six of shapes/.
    """
    lines = [
        "# Does training on hard samples help, and more than training on random samples?",
        "",
        f"`{command}`",
        "",
        "Mean over the six shapes/ benchmarks in points of 100. Differences are paired by item and"
        " have 95 % bootstrap intervals.",
        "",
        "| seed | base | tuned (hard) | control (random, same size) | tuned - base "
        "| control - base | tuned - control |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, report in reports.items():
        scores = [format_points(mean_score(report, arm)) for arm in ("base", "tuned", "control")]
        differences = [
            format_difference(report["differences"][key])
            for key in ("tuned - base", "control - base", "tuned - control")
        ]
        lines.append(f"| {seed} | " + " | ".join([*scores, *differences]) + " |")
    gains = {
        key: [report["differences"][key]["mean"] for report in reports.values()]
        for key in ("tuned - base", "control - base", "tuned - control")
    }
    lines += [
        "",
        *(
            f"* {key}: smallest {format_points(min(values))}, "
            f"median {format_points(statistics.median(values))}, "
            f"largest {format_points(max(values))} points."
            for key, values in gains.items()
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run all seeds and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments, overrides = parser.parse_known_args()
    reports = {seed: run_seed(seed, overrides) for seed in arguments.seeds}
    command = " ".join(["python benchmarks/demo_gain.py", *overrides])
    text = page(reports, command)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "demo_gain.md").write_text(text)
    by_seed = {
        str(seed): {
            **{arm: report[arm] for arm in ("base", "tuned", "control")},
            "differences": report["differences"],
            "counts": report["counts"],
            "cost": report["cost"],
        }
        for seed, report in reports.items()
    }
    versions = manifest.versions()
    manifest.write_json(
        RESULTS / "demo_gain.json", {"command": command, "versions": versions, "seeds": by_seed}
    )
    print(text)


if __name__ == "__main__":
    main()
