"""Finished runs side by side: the papers' table for our rows, each against its random control."""
