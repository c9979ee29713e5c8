import sys
from pathlib import Path

# The benchmarks are programs, not a package: their modules are found beside them.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))
