"""Write the report of a finished run again, or set finished runs side by side.

python launch/report.py [KEY=VALUE ...]
python launch/report.py compare RUN [RUN ...] [--force] [--to DIR]

RUN is a folder under outputs/run. `compare` writes compare.md, .html, .csv and .tex. Runs that
are not finished, or made under other settings than the rest, end it with exit code 2 and their
names; --force compares the latter all the same, and notes it in the table.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from launch.command_line import fail, launch


def compare(words: list[str]) -> None:
    """Compare the runs of the command line; the last line on stdout is `output: FOLDER`."""
    parser = argparse.ArgumentParser(prog="report.py compare", description="runs side by side")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--force", action="store_true", help="note other settings, go on")
    parser.add_argument("--to", type=Path, metavar="DIR")
    given = parser.parse_args(words)
    try:
        folder = import_module("difftrain.recipes.compare").compare(
            given.runs, given.to, given.force
        )
    except (MissingArtifact, SchemaError, ValueError) as error:
        fail(f"{type(error).__name__}: {error}", 2)
    else:
        print((folder / "compare.md").read_text())
        print(f"output: {folder}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2:])
    else:
        launch("difftrain.recipes.chain:report")
