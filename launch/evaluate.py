"""The benchmarks of any checkpoint or hub id, outside any recipe.

python launch/evaluate.py model=NAME|FOLDER|HUB_ID benchmarks=[MMStar,shapes/MMVet] [KEY=VALUE ...]

`benchmarks` is short for evaluate.benchmarks. `model` takes a name under conf/model, or any
checkpoint (model=any model.name=...): it is asked in bfloat16 for up to 2,048 tokens, unless the
command line says otherwise.
"""

import sys
from pathlib import Path

from launch.command_line import launch
from launch.words import groups

SHORT = {"benchmarks": "evaluate.benchmarks", "limit": "evaluate.limit"}


def is_checkpoint(value: str) -> bool:
    """Whether this names a folder or a hub id, and not a group under conf/model."""
    return "/" in value or Path(value).expanduser().is_dir()


def spelt_out(words: list[str]) -> list[str]:
    """The command line with its short forms written as settings."""
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        if key == "model" and value not in groups()["model"] and is_checkpoint(value):
            found += ["model=any", f"model.name={value}"]
        elif equals and key in SHORT:
            found.append(f"{SHORT[key]}={value}")
        else:
            found.append(word)
    return found


if __name__ == "__main__":
    sys.argv[1:] = spelt_out(sys.argv[1:])
    launch("difftrain.recipes.chain:evaluate")
