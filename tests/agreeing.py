"""One of two processes that tell each other what one of them knows or cannot do. Run by test_processes.py."""

import sys

from csbp_jax import processes
from csbp_jax.config import CheckpointError, ConfigError
from csbp_jax.stop import Stop


def main(how, process):
    def fails(kind, text):
        raise kind(text)

    def told(function):
        try:
            return function()
        except ConfigError as error:
            return f"{type(error).__name__}: {error}"

    with processes.joined(how, Stop()) as stop:
        print(processes.share(), processes.first())
        print(processes.by_first(lambda: ["of", process]), stop.code)
        print(told(lambda: processes.by_first(lambda: fails(CheckpointError, f"damaged, says {process}"))))
        print(processes.by_all(lambda: process))
        print(told(lambda: processes.by_all(lambda: process or fails(ConfigError, "no data"))))
        print(told(lambda: processes.same("options", {"seed": process // 2})))
        print(told(lambda: processes.same("options", {"seed": process})))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
