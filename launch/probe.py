"""Build the data set and run the probe, nothing more."""

from difftrain.cli import main

if __name__ == "__main__":
    main("probe")
