"""Data and probe alone.

python launch/probe.py [KEY=VALUE ...]
"""

from launch.command_line import launch

if __name__ == "__main__":
    launch("difftrain.recipes.chain:probe")
