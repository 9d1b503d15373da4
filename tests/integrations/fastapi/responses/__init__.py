"""The cache of HTTP responses."""
