"""What people see: pages and charts, and the server they run in."""
