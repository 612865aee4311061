"""What people see: tables, canvases, pictures."""
