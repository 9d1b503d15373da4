"""Faces of the rooms below for frameworks of others."""
