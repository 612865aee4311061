"""What tests of chats share: a chat template without tokens of its own, and a folder with a tokenizer for one."""

from __future__ import annotations

import json
from pathlib import Path

from checkpoints import END, START, tokenizer_json
from tokenizers import AddedToken
from tokenizers import Tokenizer as Engine

#: a chat without tokens of its own
PLAIN = "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}[assistant: "


def write_tokenizer(folder: Path, source: object, special: tuple[str, ...] = (), plain: tuple[str, ...] = ()) -> Path:
    """A folder with a tokenizer that has these tokens more, and its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine.from_str(tokenizer_json())
    engine.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    engine.add_tokens([AddedToken(text, normalized=False) for text in plain])
    (folder / "tokenizer.json").write_text(engine.to_str())
    said = {"bos_token": START, "eos_token": END, "pad_token": None, "chat_template": source}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder
