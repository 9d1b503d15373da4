"""A service on FastAPI."""
