"""Evaluate any checkpoint folder or hub id on the benchmarks, without training."""

from difftrain.cli import main

if __name__ == "__main__":
    main("evaluate")
