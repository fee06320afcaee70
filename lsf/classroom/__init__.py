"""A class: its room on disk, and the passwords at its doors."""
