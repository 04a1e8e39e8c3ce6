"""`python -m rushes.pipelines.cli` is the command `rushes`."""

from rushes.pipelines.cli.main import main

main()
