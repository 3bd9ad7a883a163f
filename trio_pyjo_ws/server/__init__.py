"""The server: from a listener to a handler."""
