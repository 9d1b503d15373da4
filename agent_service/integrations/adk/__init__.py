"""Sessions and memory for Google's Agent Development Kit: extra ``adk``."""
