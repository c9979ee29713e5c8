"""The data and the probe alone.

python launch/probe.py --help
"""

from difftrain.cli import main

if __name__ == "__main__":
    main("probe")
