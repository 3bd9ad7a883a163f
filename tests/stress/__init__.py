"""Seeded stress of the whole surface, judged by an oracle that knows only what was promised: ``nox -s stress``."""
