"""Difficulty measures: pure functions of small tables, importing only numpy and our records."""

EPS = 1e-9
"""Tolerance of comparisons: as floats, 0.8 - 0.2 is above 0.6 and 0.1 * 7 above 0.7."""
