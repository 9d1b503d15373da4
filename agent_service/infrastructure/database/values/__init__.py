"""What columns hold: checked arguments, column types, JSON documents."""
