"""``python -m csbp_jax``."""

import sys

from csbp_jax.cli import main

sys.exit(main())
