"""Conversations as trees of entries: records that say where a history ends, and entries that share their beginnings."""
