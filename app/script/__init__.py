"""Where Streamlit's script stands: alone, for Streamlit takes a folder `pages` beside it as scripts of its own."""
