"""The app of a class: its own server, its own two pages, and none of the others."""
