"""A run as one HTML file: the player's own files put together, with the run as JSON inside.

It asks the network for nothing, and its content security policy forbids it to. Texts are safe in it whatever they hold:
no `<` of theirs is in the file, and the player shows them as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

#: the player's modules, what imports nothing first; `page/save.js` has the same list
MODULES = ("dom.js", "film.js", "chart.js", "readout.js", "view.js", "player.js", "single.js")
_IMPORTS = re.compile(r"^import .*?;\n|^export (?=class|function|const)", re.MULTILINE | re.DOTALL)


def saved(films: Sequence[Mapping[str, Any]], row: int = 0) -> str:
    """The HTML of one film, or of two that are shown side by side; each with `header`, `steps` and perhaps `record`.

    `row`: the number of the row that is shown first.
    """
    page = files("mdsample_serve") / "page"
    texts = {name: (page / name).read_text(encoding="utf-8") for name in ("saved.html", "style.css", *MODULES)}
    pieces = {
        "/*STYLE*/": texts["style.css"],
        "/*DATA*/": json.dumps({"films": list(films), "row": row}).replace("<", "\\u003c"),
        "/*SCRIPT*/": "".join(_IMPORTS.sub("", texts[name]) for name in MODULES),
    }
    return re.sub(r"/\*(STYLE|DATA|SCRIPT)\*/", lambda found: pieces[found[0]], texts["saved.html"])
