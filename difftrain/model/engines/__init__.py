"""Engines that turn requests into answers; one file each."""
