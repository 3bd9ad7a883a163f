"""Bytes and rules: RFC 6455 and RFC 7692 without input or output."""
