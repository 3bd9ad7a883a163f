"""``python -m trio_pyjo_ws``: the programs of :mod:`trio_pyjo_ws.cli`."""

import sys

from .cli import main

sys.exit(main())
