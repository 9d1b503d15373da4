"""A cache before a store, and what may be one."""
