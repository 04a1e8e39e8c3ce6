"""Where a request may reach: names, inputs and media resolve to places inside the roots or not at all."""

from __future__ import annotations

import os
import posixpath
import re

from rushes.curation import manifest
from rushes.curation.manifest import ManifestError, Run

RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_RUN_NAME = re.compile(RUN_NAME)
TEXT_MOST = 4_096  # characters of an address
INPUTS_MOST = 1_000_000


class PlaceError(ValueError):
    """A place outside the roots, or none: one sentence."""


def run_root(runs: str, name: str) -> str:
    """Address of the run `name`. Raises PlaceError for a name that is none, or a link that leads out of the runs."""
    if not _RUN_NAME.fullmatch(name) or ".." in name:
        raise PlaceError("A run's name has letters, digits and . _ - only, and begins with a letter or digit.")
    if "://" in runs:
        return f"{runs.rstrip('/')}/{name}"
    path = os.path.realpath(os.path.join(runs, name))
    if not _inside(path, os.path.realpath(runs)):
        raise PlaceError(f"The run '{name}' is a link out of the folder of runs.")
    return path


def confined(address: str, roots: tuple[str, ...]) -> str:
    """The address with links and .. resolved, if it lies in one of the roots. Raises PlaceError otherwise."""
    if not address or len(address) > TEXT_MOST or any(ord(letter) < 32 for letter in address):
        raise PlaceError("An address is 1 to 4,096 characters without control characters.")
    if "://" in address and not address.startswith("file://"):
        scheme, _, rest = address.partition("://")
        path = posixpath.normpath(rest.partition("?")[0])
        resolved = f"{scheme.lower()}://{path}"
        remote = [root for root in roots if "://" in root]
        if "?" in address or "#" in address or "@" in rest or "%" in rest or "\\" in rest:
            raise PlaceError("An address on an object store is scheme://bucket/path, without options or keys.")
        if any(resolved == root or resolved.startswith(root + "/") for root in remote):
            return resolved
    else:
        path = address.removeprefix("file://")
        if not os.path.isabs(path):
            raise PlaceError("Name an input by its absolute path, or by its address on an object store.")
        resolved = os.path.realpath(path)
        if any(_inside(resolved, root) for root in roots if "://" not in root):
            return resolved
    raise PlaceError("That place lies outside the roots of this service; ask who runs it for another --root.")


def inputs(addresses: list[str], roots: tuple[str, ...]) -> list[str]:
    """All footage that files, folders, patterns and lists name, each confined: also what lists and links lead to.

    Raises PlaceError or InputError.
    """
    from rushes.curation.video.inputs import list_inputs

    found: list[str] = []
    for address in addresses:
        fixed = re.split(r"[*?\[]", address)[0]
        confined(fixed if fixed == address else fixed.rpartition("/")[0] or "/", roots)
        found += list_inputs([address])
    if len(found) > INPUTS_MOST:
        raise PlaceError(f"{len(found):,} inputs are more than a job takes ({INPUTS_MOST:,}); split it.")
    return sorted({confined(uri, roots) for uri in found})


def checked_run(run: Run) -> Run:
    """The run, if its record names only files inside it. Raises ManifestError: somebody wrote a record by hand."""
    fs, root = manifest.resolve(run.root)
    for facts in run.record["tables"].values():
        for file in facts["files"]:
            if file.startswith("/") or ".." in file.split("/") or "://" in file:
                raise ManifestError(f"{run.root}/run.json names a file outside the run; publish the run again.")
            if manifest.is_local(fs) and not _inside(os.path.realpath(f"{root}/{file}"), os.path.realpath(root)):
                raise ManifestError(f"{run.root}/run.json names a link out of the run; publish the run again.")
    return run


def media_place(run: Run, media: str, roots: tuple[str, ...]) -> str:
    """Address of a cut clip: below its run, or in one of the roots where the run was judged into another folder."""
    address = media if "://" in media or media.startswith("/") else manifest.join(run.root, media)
    return confined(address, (*roots, run.root))


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
