"""The Autobahn test suite: ``nox -s autobahn`` and ``nox -s autobahn_full``; see ``docs/conformance.md``."""
