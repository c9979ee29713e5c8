"""Reads artefacts, writes tables, plots and a page; no torch."""
