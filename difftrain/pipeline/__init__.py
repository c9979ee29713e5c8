"""The chain of stages, the folders with their output, and the coordination of parallel ranks."""
