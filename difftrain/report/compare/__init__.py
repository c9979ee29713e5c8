"""Finished runs side by side: the papers' table for our runs, each row against its control."""
