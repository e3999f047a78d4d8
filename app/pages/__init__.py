"""One module per page; `app.navigation` finds them, so a new page is one new file."""
