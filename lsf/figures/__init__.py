"""Pictures: a result in; figure, alt text and data out. Shows nothing, knows neither Streamlit nor torch."""
