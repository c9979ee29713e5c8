"""The judge: an OpenAI-compatible server, its cache on disk, its budget and its counts."""
