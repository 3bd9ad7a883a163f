"""The version of the package: the one place that has it."""

__all__ = ["__version__"]

__version__: str = "0.1.0"
"""The version of the package."""
