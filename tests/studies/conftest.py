import sys
from pathlib import Path

# The studies are scripts, not a package: this makes their modules importable.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
