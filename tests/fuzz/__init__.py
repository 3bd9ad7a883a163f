"""Coverage-guided fuzzing, by atheris: ``nox -s fuzz``; see ``docs/conformance.md``.

A target is a module with ``check(data)``, which lets nothing out but what shows a bug. Its corpus, the inputs that are
worth starting from, lies in ``corpus``; ``tests/test_fuzz.py`` checks them all without atheris.
"""
