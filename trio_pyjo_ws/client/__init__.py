"""The client: from a URL to a transaction."""
