"""Two finished evaluations, item by item: is the second checkpoint better?

python launch/compare.py FOLDER FOLDER [--to DIR]

The folders are those that launch/evaluate.py ends with. Writes comparison.md, comparison.json and
item_diffs.jsonl (every item on which the two differ). Exit code 2 if the two were not marked under
the same settings or on the same items.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from difftrain.evaluate import paired
from difftrain.pipeline import manifest, parquet
from difftrain.pipeline.parquet import MissingArtifact, SchemaError
from difftrain.records import ItemResult
from launch.command_line import fail


def made_of(folder: Path) -> dict[str, Any]:
    """The manifest.json of an evaluation. Raises MissingArtifact if there is none.

    Raises SchemaError if it is an older one, which does not say what its items were.
    """
    found = manifest.read_manifest(folder)
    if found is None or not parquet.parts(folder):
        raise MissingArtifact(f"no evaluation at {folder}: run  python launch/evaluate.py")
    if not any(key.startswith(paired.ITEMS) for key in found["inputs"]):
        raise SchemaError(
            f"{folder} does not say what its items were: remove its manifest.json and run the "
            "command that made it again; no model is asked"
        )
    return found


def compare(first: Path, second: Path, to: Path | None) -> Path:
    """Write the comparison; returns its folder. Raises ValueError for what cannot be compared."""
    one, two = made_of(first), made_of(second)
    if differing := paired.disagreements(one["settings"], two["settings"]):
        told = "\n".join(f"  {each}" for each in differing)
        raise ValueError(f"the two were not marked under the same settings:\n{told}")
    if other := paired.other_items(one["inputs"], two["inputs"]):
        told = "the items, their words or their pictures differ"
        raise ValueError(f"the two were not asked the same items of {', '.join(other)}: {told}")
    before, after = (parquet.read(folder, ItemResult) for folder in (first, second))
    rows = paired.compare(before, after)
    names = [made["inputs"]["checkpoint"] for made in (one, two)]
    folder = to or second.parent.parent / "compare" / f"{first.name}-{second.name}"
    changed = [json.dumps(asdict(each)) for each in paired.changed(before, after)]
    manifest.write_text(folder / "item_diffs.jsonl", "".join(f"{line}\n" for line in changed))
    content = {"checkpoints": names, "benchmarks": paired.plain(rows)}
    manifest.write_json(folder / "comparison.json", content)
    manifest.write_text(folder / "comparison.md", paired.page(names, rows, one["settings"]))
    return folder


def main() -> None:
    """Compare the two folders of the command line; the last line is `output: FOLDER`."""
    parser = argparse.ArgumentParser(description="compare two finished evaluations item by item")
    parser.add_argument("folders", nargs=2, type=Path, metavar="FOLDER")
    parser.add_argument("--to", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    try:
        first, second = arguments.folders
        print(f"output: {compare(first, second, arguments.to)}")
    except (MissingArtifact, SchemaError, ValueError) as error:
        fail(f"{type(error).__name__}: {error}", 2)


if __name__ == "__main__":
    main()
