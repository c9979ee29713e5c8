"""Data, probe and scores.

python launch/score.py [KEY=VALUE ...]
"""

from launch.command_line import launch

if __name__ == "__main__":
    launch("difftrain.recipes.chain:score")
