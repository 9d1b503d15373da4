"""Google ADK: sessions and memory."""
