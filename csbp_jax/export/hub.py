"""Publication of a run's network on the Hugging Face hub: its weights, its config, and a card of what was measured.

What is pushed is a folder as runs/published.py describes it, with README.md (the card) and the run's result.json.
A clone of the repository is a folder that this package loads.
"""

import pathlib
import shutil
import tempfile

from csbp_jax import __version__
from csbp_jax.config import Config, ConfigError, replaced, to_json
from csbp_jax.export.model_card import card
from csbp_jax.runs import hub, published, restore
from csbp_jax.runtime import files, seals
from csbp_jax.training import run_json
from csbp_jax.training.plugins import COPY, in_parentheses

_COPIED = ("result.json", COPY)


def push(
    run: str | pathlib.Path,
    repository: str,
    *,
    weights_of: restore.WeightsOf = "last",
    private: bool = False,
    trust: bool = False,
) -> str:
    """Push a run's network to ``USER/NAME`` on the hub, as one commit, and return the address that loads it.

    The repository is created if it does not exist; of an earlier push, the files of its run that this one lacks are
    deleted, and files that no push writes stay. The account is that of ``hf auth login``, or of HF_TOKEN.

    Args:
      run: the run's folder.
      repository: ``USER/NAME`` or ``hf://USER/NAME``.
      weights_of: weights of the "last" epoch, of the epoch "chosen" by validation, or their moving average, "ema".
      private: create a private repository; one that exists stays as it is.
      trust: execute the run's own code, if it has any; that file is pushed, too.

    Returns:
      ``hf://USER/NAME@COMMIT``.

    Raises:
      ConfigError: no such run or repository, the run's own parts are in no file, huggingface_hub is not installed, or
        the hub refuses.
    """
    address = hub.parse(repository if hub.is_address(repository) else f"hf://{repository}")
    if address.revision:
        raise ConfigError(f"{repository}: a push makes a new revision; leave out @{address.revision}")
    client = hub.client(f"push to {address}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary, "network")
        write_folder(run, folder, address.repository, weights_of=weights_of, trust=trust)
        operations = [client.CommitOperationAdd(file.name, str(file)) for file in sorted(folder.iterdir())]
        api = client.HfApi(library_name="csbp_jax", library_version=__version__)
        message = f"Network of run {pathlib.Path(run).resolve().name}, by csbp_jax {__version__}"
        try:
            api.create_repo(address.repository, private=private or None, exist_ok=True)
            # A commit keeps files that it does not name: here those of an earlier run. Missing ones cannot be deleted.
            for name in _COPIED:
                if not (folder / name).exists() and api.file_exists(address.repository, name):
                    operations.append(client.CommitOperationDelete(name))
            commit = api.create_commit(address.repository, operations, commit_message=message)
        except Exception as error:  # the client's own errors, those of its HTTP library, and of the system
            raise ConfigError(f"{address}: {hub.reason(client, error)}") from None
    return str(address._replace(revision=commit.oid))


def write_folder(
    run: str | pathlib.Path,
    folder: pathlib.Path,
    repository: str,
    *,
    weights_of: restore.WeightsOf = "last",
    trust: bool = False,
) -> None:
    """Write all that is pushed to a new folder.

    Paths in the config are shortened to their last component, for they are those of the user's machine.

    Args:
      run, weights_of, trust: as of :func:`push`.
      folder: the new folder.
      repository: ``USER/NAME``, which the card names.

    Raises:
      ConfigError: no such run, a file to be copied is a link, the run's own parts are in no file, the folder exists,
        or huggingface_hub is not installed.
    """
    client, source = hub.client("a model card"), pathlib.Path(run)
    content = run_json.read_run(source, "whose runs save no weights; train the setting (csbp_jax train)")
    for name in _COPIED:
        if (source / name).is_symlink():
            raise ConfigError(f"{source / name}: is a link; put a copy of the file there, if it may be published")
    own = content.get("own", {})
    if own and "sha256" not in own:
        raise ConfigError(
            f"{run}: has own parts{in_parentheses(own['parts'])} that are in no file, and cannot be pushed; write them "
            "into a file and train that (docs/own.md)"
        )
    restored = restore.restore(source, weights_of, trust=trust)
    restored = restored._replace(config=_without_directories(restored.config))
    content |= {
        "config": to_json(restored.config),
        "weights_of": restored.weights_of,
        "epoch": restored.epoch,
        "producer": f"csbp_jax {__version__}",
    }
    if own:
        content["own"] = own | {"file": pathlib.Path(own["file"]).name}
    text = card(restored, source, repository, client)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(f"{folder}: exists; name a new folder") from None
    seals.write_json(folder / published.CONFIG, content)
    files.write_text(folder / "README.md", text)
    published.write_variables(restored.variables, {"producer": content["producer"]}, folder / published.WEIGHTS)
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _without_directories(config: Config) -> Config:
    paths = {"data.dir": config.data.dir, "weights": config.weights, "weights_table": config.weights_table}
    for name, path in paths.items():
        config = replaced(config, name, pathlib.Path(path).name)
    return config
