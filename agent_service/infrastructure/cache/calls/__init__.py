"""Decorated functions: their keys, their way to the cache, and what they offer."""
