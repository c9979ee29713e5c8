"""The report of a finished run, written again; or finished runs side by side."""

from difftrain.cli import main

if __name__ == "__main__":
    main("report")
