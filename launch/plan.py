"""Estimate the samples, responses, hours and memory of a run before it starts."""

from difftrain.cli import main

if __name__ == "__main__":
    main("plan")
