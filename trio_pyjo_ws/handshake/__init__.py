"""The opening handshake, without input or output: URLs, HTTP, headers, redirects, tunnels."""
