"""Checkpoints of agent frameworks as rows of bytes: written in groups, read by thread, copied, pruned and removed."""
