"""``python -m envs_mjx.parity``."""

import sys

from envs_mjx.parity.report import main

sys.exit(main())
