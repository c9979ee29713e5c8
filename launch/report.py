"""The report of a finished run, written again; or finished runs side by side.

python launch/report.py --help
"""

from difftrain.cli import main

if __name__ == "__main__":
    main("report")
