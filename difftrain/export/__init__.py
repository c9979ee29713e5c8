"""Scores and picks for others: parquet beside the original row, and other trainers' formats."""
