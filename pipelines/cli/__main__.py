"""`python -m rushes.pipelines.cli` is the command `rushes`."""

from rushes.pipelines.cli.entry import main

main()
