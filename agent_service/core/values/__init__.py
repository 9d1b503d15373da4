"""Values as bytes: the parts of the codec, from a value to JSON and back to its class."""
