"""Build the data set, run the probe and score the samples."""

from difftrain.cli import main

if __name__ == "__main__":
    main("score")
