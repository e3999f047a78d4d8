"""Pure functions from a DataFrame to an Altair chart or a table."""
