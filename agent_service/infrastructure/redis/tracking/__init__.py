"""What Redis pushes: which keys changed, and which streams have new entries."""
