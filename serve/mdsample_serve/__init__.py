"""The HTTP server, and the page that shows a run as it comes."""
