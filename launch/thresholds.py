"""Propose thresholds of CMAB's strata from the quantiles of a scored pool."""

from difftrain.cli import main

if __name__ == "__main__":
    main("thresholds")
