"""A training process that kills itself: ``python kill_itself.py MOMENT NUMBER LOG ARGUMENTS...``; see test_kills.py.

Nothing of the program is changed: Python tells an audit hook of each file that is opened, renamed or removed.
"""

import os
import pathlib
import random
import runpy
import signal
import sys
import threading
import time


def watch_and_train(moment, seed, log, arguments):
    rng = random.Random(int(seed))
    # Within a save or a collection, the number of a file operation; else seconds, of training or after a save began.
    countdown = rng.randrange({"save": 100, "collection": 30}.get(moment, 1))
    delay = rng.uniform(0, {"anywhere": 1.5, "soon after a save's beginning": 0.1}.get(moment, 0))
    collecting: set[int] = set()
    begun = dying = False
    # Open before the hook is: the hook must open nothing.
    reported = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def kill():
        nonlocal dying
        dying = True
        os.write(reported, f"{moment}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def later():
        time.sleep(delay)
        kill()

    def hook(event, given):
        nonlocal countdown, begun
        if dying or not event.startswith(("os.", "open", "shutil.")):
            return
        paths = [os.fsdecode(path) for path in given[:2] if isinstance(path, str | bytes | os.PathLike)]
        saving = any(".part" in path and "checkpoints" in path for path in paths)
        if any(path.endswith(".gone") for path in paths):
            collecting.add(threading.get_ident())
        if event == "shutil.rmtree" and not any(path.endswith(".gone") for path in paths):
            collecting.discard(threading.get_ident())
        deleting = threading.get_ident() in collecting and not saving
        if (moment == "save" and saving) or (moment == "collection" and deleting):
            if countdown == 0:
                kill()
            countdown -= 1
        training = event == "open" and any(path.endswith("metrics.jsonl") for path in paths) and given[1] == "a"
        if not begun and ((moment == "anywhere" and training) or (moment.startswith("soon") and saving)):
            begun = True
            timer.start()

    timer = threading.Thread(target=later, daemon=True)
    if moment != "none":
        sys.addaudithook(hook)
    sys.argv = ["csbp_jax", *arguments]
    runpy.run_module("csbp_jax", run_name="__main__")


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    watch_and_train(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
