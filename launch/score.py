"""The data, the probe and the scores.

python launch/score.py --help
"""

from difftrain.cli import main

if __name__ == "__main__":
    main("score")
