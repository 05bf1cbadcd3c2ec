"""One of two processes that tell each other what one of them knows or cannot do. Run by test_multihost.py."""

import os
import pathlib
import sys
import time

from csbp_jax.config import CheckpointError, ConfigError
from csbp_jax.runtime import multihost
from csbp_jax.runtime.preemption import Stop


def main(how, process, file):
    def existed():
        found = file.exists()
        time.sleep(0.2 * (process == 0))
        file.touch()
        return found

    def fails(kind, text):
        raise kind(text)

    def reported(function):
        try:
            return function()
        except (ConfigError, ZeroDivisionError) as error:
            return f"{type(error).__name__}: {error}"

    with multihost.connected(how, Stop()) as stop:
        print(multihost.is_host0())
        print(multihost.broadcast_from_host0(lambda: ["of", process]), stop.poll())
        print(
            reported(lambda: multihost.broadcast_from_host0(lambda: fails(CheckpointError, f"damaged, says {process}")))
        )
        print(multihost.all_succeed(lambda: process))
        print(reported(lambda: multihost.all_succeed(lambda: process or fails(ConfigError, "no data"))))
        print(reported(lambda: multihost.all_succeed(lambda: process or fails(ZeroDivisionError, "1 / 0"))))
        print(multihost.host0_first(existed))
        print(reported(lambda: multihost.host0_first(lambda: fails(ConfigError, f"damaged, says {process}"))))
        print(reported(lambda: multihost.check_equal("options", {"seed": process // 2})))
        print(reported(lambda: multihost.check_equal("options", {"seed": process})))
        multihost.broadcast_from_host0(lambda: fails(OSError, "no space"))


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]))
    except (ConfigError, OSError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(0)  # as csbp_jax leaves after an error: without the orderly end that would disconnect it
