"""A cache of HTTP responses by RFC 9110 and 9111, on the cache of the settings and its loads."""
