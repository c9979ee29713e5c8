"""Write the report of a finished run again.

python launch/report.py [KEY=VALUE ...]
"""

from launch.command_line import launch

if __name__ == "__main__":
    launch("recipes.chain:report")
