"""Turns the rows of a source into Samples with decoded images, or rejects them with a reason."""
