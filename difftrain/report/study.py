"""The study of whether choosing pays in the shapes world, for reports on runs in that world.

studies/does_choosing_pay.py writes the files in the folder study/.
"""

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "study"


def sentences(settings: Mapping[str, Any]) -> list[str]:
    """The study's result in three sentences; none for a run on another pool or model."""
    data = settings["data"]
    is_same_world = (data["source"], data["mix"]) == ("shapes", "paper")
    if not is_same_world or settings["model"]["name"] != "tiny":
        return []
    return (FOLDER / "study.txt").read_text().splitlines()


def figure() -> str:
    """The study's figure as an address with the image inside."""
    return f"data:image/svg+xml;base64,{b64encode((FOLDER / 'study.svg').read_bytes()).decode()}"
