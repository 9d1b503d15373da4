"""Rate limits of requests."""
