"""The chain of stages, their folders (parquet parts and a manifest), and ranks that share them."""
