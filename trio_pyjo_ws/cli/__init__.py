"""The command line: ``trio-pyjo-ws``, or ``python -m trio_pyjo_ws``."""

from .main import main

__all__ = ["main"]
