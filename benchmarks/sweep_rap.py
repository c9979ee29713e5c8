"""RAP's Table 1 and ablation on the shapes world: run the sweep, and write its table as a page.

    python benchmarks/sweep_rap.py [KEY=VALUE ...]

Runs `difftrain sweep table=rap` with these arguments (such as seed=1,2,3 or output_dir=DIR) and
writes benchmarks/results/sweep_rap.md and .csv. Finished runs are not repeated.
"""

import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from difftrain.pipeline import manifest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = """# RAP's Table 1 and its ablation on the shapes world

`{command}`, at commit {revision}, {date}. {count} runs; {seconds:,.0f} seconds with other work on
the machine, {processor_seconds:,.0f} of one core.{settings}

The images are generated, the benchmarks are miniatures, the model has three million parameters:
the table shows that the rows can be run and compared in one command. It says nothing about RAP.
"""


def main() -> None:
    """Run the sweep and write the page. Ends with the sweep's exit code if it fails."""
    arguments = ["table=rap", *sys.argv[1:]]
    command = [sys.executable, str(ROOT / "launch" / "sweep.py"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    folder = Path(done.stdout.strip().splitlines()[-1].removeprefix("output: "))
    outcomes = json.loads((folder.parents[1] / "sweep" / "rap" / "status.json").read_text())
    total = {
        key: sum(outcome[key] for outcome in outcomes.values())
        for key in ("seconds", "processor_seconds")
    }
    public = [text for text in arguments if not text.startswith("output_dir=")]
    page = PAGE.format(
        command=f"difftrain sweep {shlex.join(public)}",
        revision=manifest.git_revision() or "unknown",
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        count=len(outcomes),
        settings="" if len(public) == 1 else " Its settings are not the defaults.",
        **total,
    )
    table = (folder / "compare.md").read_text().partition("\n")[2]
    (RESULTS / "sweep_rap.md").write_text(page + table)
    (RESULTS / "sweep_rap.csv").write_text((folder / "compare.csv").read_text())
    print(f"output: {RESULTS / 'sweep_rap.md'}")


if __name__ == "__main__":
    main()
