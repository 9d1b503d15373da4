"""Contexts in a folder."""
