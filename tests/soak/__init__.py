"""A server and its clients for minutes, with all that can happen to connections: `nox -s soak`."""
