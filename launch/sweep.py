"""Run many recipes and write one table: the rows of Qi et al. 2026 by measure, data and seed."""

from difftrain.cli import main

if __name__ == "__main__":
    main("sweep")
