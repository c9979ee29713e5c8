"""Print the scores of a finished run and the differences between its models, with 95 % intervals.

A run evaluates the base model, the tuned model and, if requested, a control trained on as many
random samples.

python examples/read_a_report.py outputs/run/NAME-HASH

A run prints this folder at its end.
"""

import sys

import difftrain


def main() -> None:
    """Read report.json and print two tables."""
    report = difftrain.read_report(sys.argv[1])
    print(f"{report['name']}: {report['model']} on {report['data']}")
    for model in ("base", "tuned", "control"):
        for benchmark, result in (report.get(model) or {}).items():
            interval = f"[{result['low']:.3f}, {result['high']:.3f}]"
            print(f"{model:8} {benchmark:24} {result['score']:.3f} {interval}")
    for name, difference in report["differences"].items():
        print(
            f"{name}: {difference['mean']:+.3f} [{difference['low']:.3f}, {difference['high']:.3f}]"
        )


if __name__ == "__main__":
    main()
