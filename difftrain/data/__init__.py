"""Turns the rows of files or hub datasets into Samples, or rejects them with a reason."""
