"""The command `mdsample`: typer and rich around the library, with no logic of its own."""
