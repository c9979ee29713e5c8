"""Explain how one response is graded: gold=TEXT response=TEXT."""

from difftrain.cli import main

if __name__ == "__main__":
    main("grade")
