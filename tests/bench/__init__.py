"""The benchmark: ``nox -s bench``, or ``python -m bench`` in ``tests``. What it measures: ``docs/performance.md``."""
