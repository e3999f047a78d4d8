"""The script that Streamlit runs for every visitor.

While it runs it is this process's main module, which every worker that starts then imports: so nothing is imported
outside the guard.
"""

if __name__ == "__main__":
    from app.frame import frame

    frame()
