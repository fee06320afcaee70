"""The only room that imports Streamlit, beside app.py and pages/. No torch at import: the first paint waits for nobody."""
