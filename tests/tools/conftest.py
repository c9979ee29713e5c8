import sys
from pathlib import Path

# tools/ is no package: its programs import one another from their own folder, and so do the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
