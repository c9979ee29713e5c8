"""Rollouts under masked, full and text-only views, and the attention of their responses."""
