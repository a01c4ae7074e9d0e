"""``python -m jaxalign`` is the command ``jaxalign``."""

import sys

from jaxalign.cli.main import main

sys.exit(main())
