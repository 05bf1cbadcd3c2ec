"""The command line on XLA's CPU as a plugin of JAX, with a known peak. Run by test_pjrt_plugin.py."""

import sys

import jax

from csbp_jax.cli.main import main
from csbp_jax.runtime import hardware

if __name__ == "__main__":
    assert "PJRT C API" in jax.devices()[0].client.platform_version
    hardware.PEAK_FLOPS[jax.devices()[0].device_kind] = 1e11
    sys.exit(main())
