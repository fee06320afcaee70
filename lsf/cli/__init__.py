"""The command line: what the app can do, by the same code; one file per command."""
