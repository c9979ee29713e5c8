import sys
from pathlib import Path

# tools/ is not a package: this makes its modules importable.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
