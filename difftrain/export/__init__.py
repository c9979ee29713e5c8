"""Scores and picks for others: parquet beside the original row, and the formats of other trainers."""
