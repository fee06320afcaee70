"""LSF: which layers of a language model are worth tuning, with evidence.

Importing this package loads neither torch nor Streamlit; see ARCHITECTURE.md for the rooms.
"""

__version__ = "0.1.0"
