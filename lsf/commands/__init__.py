"""One file per command: its options and what it does, on the functions the app calls too."""
