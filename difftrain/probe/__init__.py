"""Samples responses to masked, full and no images, and measures the attention of responses."""
