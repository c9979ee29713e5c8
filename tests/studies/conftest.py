import sys
from pathlib import Path

# Studies are programs, not a package: their modules are found beside them.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
