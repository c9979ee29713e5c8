"""Build the data set, sample responses under growing image masks and score the samples."""

from difftrain.cli import main

if __name__ == "__main__":
    main("score")
