"""Loads models, generates responses with them and measures their attention."""
