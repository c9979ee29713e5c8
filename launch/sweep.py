"""Run many recipes over difficulty measures, data sets and seeds, and write one table."""

from difftrain.cli import main

if __name__ == "__main__":
    main("sweep")
