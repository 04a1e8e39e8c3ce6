"""Files at http:// and https:// addresses, to be read in place by pyarrow: a server must answer requests for ranges."""

from __future__ import annotations

from functools import cache

import pyarrow.fs as pafs

SECONDS = 60.0  # a server that says nothing for so long is given up


@cache
def file_system() -> pafs.FileSystem:
    """One for the process; read only."""
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS, sock_read=SECONDS)
    return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem("http", client_kwargs={"timeout": timeout})))
