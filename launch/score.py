"""The data, the probe and the scores."""

from difftrain.cli import main

if __name__ == "__main__":
    main("score")
