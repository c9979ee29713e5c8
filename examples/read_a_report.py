"""Print the scores of a finished run and its paired differences with 95 % intervals.

python examples/read_a_report.py outputs/run/grpo_hard-...
"""

import sys

import difftrain


def main() -> None:
    """Read report.json and print two tables."""
    report = difftrain.read_report(sys.argv[1])
    print(f"{report['name']}: {report['model']} on {report['data']}")
    for arm in ("base", "tuned", "control"):
        for benchmark, result in (report.get(arm) or {}).items():
            interval = f"[{result['low']:.3f}, {result['high']:.3f}]"
            print(f"{arm:8} {benchmark:24} {result['score']:.3f} {interval}")
    for name, difference in report["differences"].items():
        print(
            f"{name}: {difference['mean']:+.3f} [{difference['low']:.3f}, {difference['high']:.3f}]"
        )


if __name__ == "__main__":
    main()
