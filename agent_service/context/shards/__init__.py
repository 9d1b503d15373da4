"""Contexts spread over several stores."""
