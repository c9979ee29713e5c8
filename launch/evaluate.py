"""The benchmarks of any checkpoint or hub id, outside any recipe."""

from difftrain.cli import main

if __name__ == "__main__":
    main("evaluate")
