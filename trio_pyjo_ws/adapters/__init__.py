"""Adapters to other software, one module each. A module that needs an extra is imported only when it is used."""
