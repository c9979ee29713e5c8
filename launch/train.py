"""Run the whole pipeline: score, select, train, evaluate, report."""

from difftrain.cli import main

if __name__ == "__main__":
    main("train")
