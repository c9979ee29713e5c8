"""Scores as parquet beside the original rows, and the picks in other trainers' formats.

python launch/export.py [KEY=VALUE ...]
"""

from launch.command_line import launch

if __name__ == "__main__":
    launch("difftrain.recipes.export:run")
