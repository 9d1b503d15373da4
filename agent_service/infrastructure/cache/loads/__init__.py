"""From a miss to a value: one load for all who ask, and what is stored of it."""
