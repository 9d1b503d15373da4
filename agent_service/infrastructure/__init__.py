"""Connections to the outside: Redis, caches, databases."""
