"""The whole chain: score, select, train, evaluate, report.

python launch/train.py [KEY=VALUE ...]
"""

from launch.command_line import launch

if __name__ == "__main__":
    launch("difftrain.recipes.chain:train", trains=True)
