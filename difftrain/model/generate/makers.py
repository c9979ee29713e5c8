"""Who made the answers of a folder: a small file for each engine that was asked.

Written before the first answer, so that the engine of a killed run is known too.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difftrain.pipeline import manifest

FOLDER = "engines"


def note(folder: Path, about: Mapping[str, Any]) -> None:
    """Say who is asked; the file is named after what it holds."""
    text = json.dumps(about, indent=2, sort_keys=True) + "\n"
    name = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    manifest.write_text(folder / FOLDER / f"{name}.json", text)


def read(folder: Path) -> list[dict[str, Any]]:
    """Every engine that was asked for this folder's answers."""
    return [json.loads(path.read_text()) for path in sorted((folder / FOLDER).glob("*.json"))]
