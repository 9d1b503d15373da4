"""Objects that others wrote, with some of the calls of a store, as whole stores."""
