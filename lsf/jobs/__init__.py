"""The run folder contract and the background worker; neither torch nor Streamlit at import."""
