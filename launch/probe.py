"""Build the data set and sample responses under growing image masks, without scoring them."""

from difftrain.cli import main

if __name__ == "__main__":
    main("probe")
