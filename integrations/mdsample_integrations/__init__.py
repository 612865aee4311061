"""Engines that others keep, joined to mdsample; one thin file each."""
