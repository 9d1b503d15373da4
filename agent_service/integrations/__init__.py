"""Thin faces of the rooms below for frameworks and tools of others, each behind an extra of its own."""
