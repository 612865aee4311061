"""Values without opinions: tokens on a canvas, templates, statistics, random numbers."""
