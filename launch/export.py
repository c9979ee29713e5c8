"""Export the scores and the selection in other trainers' formats."""

from difftrain.cli import main

if __name__ == "__main__":
    main("export")
