"""SQL statements and conditions; sending them is the work of other rooms."""
