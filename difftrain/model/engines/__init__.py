"""Engines that turn requests into completions: transformers (hf), vLLM, or a server over HTTP."""
