"""Difficulty measures: pure functions of arrays of graded responses or of attention values."""

EPS = 1e-9
"""Tolerance of comparisons: computed in floats, 0.8 - 0.2 and 0.1 * 7 exceed 0.6 and 0.7."""
