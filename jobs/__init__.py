"""Thin scripts, one per command; each reads like a story."""
