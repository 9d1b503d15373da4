"""The cache: may lose data, never lies, never raises for an outage."""
