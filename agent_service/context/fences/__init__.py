"""Fences: what keeps a cache from holding what the database no longer says."""
