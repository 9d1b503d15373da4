"""The probes, by what they are about."""
