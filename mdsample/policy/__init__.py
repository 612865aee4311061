"""What decides: parts, the policies they add up to, and their text."""
