"""Networks on the Hugging Face hub: ``hf://USER/NAME`` or ``hf://USER/NAME@REVISION``, in place of a run's folder.

Three files are downloaded, to the hub's own cache: config.json, model.safetensors and, of a network with code of its
own, experiment.py, which runs only if it is trusted. No file is unpickled, and the size of each is checked before it is
downloaded. Whether a name is such an address is for restore.py to tell.
"""

import os
import pathlib
import re
from typing import Any, NamedTuple

from csbp_jax.config import ConfigError, extras
from csbp_jax.runs.published import CONFIG, WEIGHTS
from csbp_jax.training import run_json
from csbp_jax.training.plugins import COPY

MAX_BYTES = {CONFIG: 4 * 2**20, COPY: 2**20, WEIGHTS: 4 * 2**30}
"""Largest size of each file."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class Address(NamedTuple):
    """A network on the hub; without a revision, the newest of its main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        """Return the address as a user writes it."""
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_address(run: str | os.PathLike[str]) -> bool:
    """Return whether a run is named by an address on the hub; a ``pathlib.Path`` of one has lost a slash."""
    return re.match("hf:/", str(run)) is not None


def parse(run: str | os.PathLike[str]) -> Address:
    """Parse an address.

    Raises:
      ConfigError: it is not one.
    """
    match = re.fullmatch(rf"hf:/{{1,2}}({_NAME}/{_NAME})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?", str(run))
    if not match:
        raise ConfigError(f"{run}: is no address on the hub; write hf://USER/NAME or hf://USER/NAME@REVISION")
    return Address(match[1], match[2])


def output_folder(address: Address) -> pathlib.Path:
    """Return the folder for what commands write about a network on the hub, ``hub/USER/NAME``."""
    return pathlib.Path("hub", address.repository)


def client(purpose: str) -> Any:
    """Return the module huggingface_hub.

    Raises:
      Missing: it is not installed.
    """
    extras.need("hub", purpose)
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


def download(address: Address) -> pathlib.Path:
    """Download a network, unless the cache has it, and return its folder there.

    Without a connection, or with ``HF_HUB_OFFLINE=1``, it must be in the cache.

    Raises:
      ConfigError: it does not exist, is private, has no network of this package or too large a file, or cannot be
        reached.
    """
    hub = client(str(address))
    # By the name of its revision, which the cache then knows without a connection; the others are of the same commit.
    folder = _fetch(hub, address, CONFIG, address.revision).parent
    content = run_json.read_config(folder, "it is not a network of csbp_jax")
    for name in (WEIGHTS, COPY) if content.get("own") else (WEIGHTS,):
        _fetch(hub, address, name, folder.name)
    return folder


def _fetch(hub: Any, address: Address, name: str, revision: str | None) -> pathlib.Path:
    """Download a file of a revision, after a check of its size, and return its path in the cache."""
    try:
        size = hub.hf_hub_download(address.repository, name, revision=revision, dry_run=True).file_size
        if size is not None and size <= MAX_BYTES[name]:
            return pathlib.Path(hub.hf_hub_download(address.repository, name, revision=revision))
    except Exception as error:  # the client's own errors, those of its HTTP library, and of the system
        raise ConfigError(f"{address}: {reason(hub, error, name)}") from None
    stated = "of unknown size" if size is None else f"{size:,} bytes"
    raise ConfigError(f"{address}: {name} is {stated}; at most {MAX_BYTES[name]:,} bytes are downloaded")


def reason(hub: Any, error: Exception, name: str = "") -> str:
    """Say in one line why the hub, or its client, did not do what was asked, and what to do."""
    errors = hub.errors
    login = "log in (hf auth login), or set HF_TOKEN"
    match error:
        case errors.GatedRepoError():
            return f"is gated; ask for access on its page, and {login}"
        case errors.RepositoryNotFoundError():
            return f"there is no such repository, or it is private; for a private one, {login}"
        case errors.RevisionNotFoundError():
            return "has no such revision"
        case errors.LocalEntryNotFoundError():
            return (
                f"{name} is not in the cache, and the hub cannot be reached; check the connection, and HF_HUB_OFFLINE"
            )
        case errors.EntryNotFoundError():
            return f"has no {name}; it is not a network of csbp_jax"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub refuses (status {status}); {login}, with a token that may write"
    if isinstance(error, RuntimeError) and error.__cause__:  # of one file of several
        return reason(hub, error.__cause__, name) if isinstance(error.__cause__, Exception) else str(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{lines[0] if lines else 'failed'} ({type(error).__name__})"
