"""Appending messages: one at a time in the caller's transaction, and many in one commit."""
