"""How often the signals are wrong, on made footage whose truth is known to the frame: `python -m tests.accuracy`."""
