"""Reads artifacts, writes tables, plots and a page; no torch."""
