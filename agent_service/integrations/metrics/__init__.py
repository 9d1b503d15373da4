"""What a process measures: the list of all metrics, and their values now."""
