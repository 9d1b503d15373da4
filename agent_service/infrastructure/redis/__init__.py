"""The only room that imports redis: connections, health, errors, names."""
