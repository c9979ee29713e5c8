"""Run many recipes and write one table: the papers' rows over measures, data and seeds."""

from difftrain.cli import main

if __name__ == "__main__":
    main("sweep")
