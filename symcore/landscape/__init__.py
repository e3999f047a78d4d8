"""Loss along paths between networks."""
