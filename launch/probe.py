"""The data and the probe alone."""

from difftrain.cli import main

if __name__ == "__main__":
    main("probe")
