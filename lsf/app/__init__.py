"""The only room that imports Streamlit, beside app.py and pages/; it imports no torch, so the first paint is quick."""
