"""Difficulty measures as pure functions of tables; numpy and records only."""

EPS = 1e-9
"""Keeps rounding from putting 7 of 10 below 0.7, and 0.8 - 0.2 above 0.6."""
