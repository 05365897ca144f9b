"""``python -m lineside`` is ``lineside``."""

import sys

from lineside.cli import main

sys.exit(main())
