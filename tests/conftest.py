"""What holds for all tests."""

from __future__ import annotations

import os

# The servers of the tests are on this machine; a proxy that the environment names has no way to them.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]
