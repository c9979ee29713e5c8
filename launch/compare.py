"""Two finished evaluations, item by item: is the second checkpoint better?

python launch/compare.py FOLDER FOLDER [--to DIR]

The folders are those that launch/evaluate.py ends with. Writes comparison.md, comparison.json and
item_diffs.jsonl (every item on which the two differ). Exit code 2 if the two have
other settings or other items.
"""

import argparse
from pathlib import Path

from difftrain.evaluate.compare import compare_evaluations
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from launch.command_line import fail


def main() -> None:
    """Compare the two folders of the command line; the last line is `output: FOLDER`."""
    parser = argparse.ArgumentParser(description="compare two finished evaluations item by item")
    parser.add_argument("folders", nargs=2, type=Path, metavar="FOLDER")
    parser.add_argument("--to", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    try:
        print(f"output: {compare_evaluations(*arguments.folders, arguments.to)}")
    except (MissingArtifact, SchemaError, ValueError) as error:
        fail(f"{type(error).__name__}: {error}", 2)


if __name__ == "__main__":
    main()
