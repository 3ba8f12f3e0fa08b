"""An agent: it reads messages from stdin, a line each, and writes what it answers to stdout.

Its folder and $HOME last as long as its session: what it writes down today is there when the session is resumed.
"""

import sys
from pathlib import Path

SAID = Path("said.txt")


def answer(message: str) -> str:
    """What to say to a message: put your model here."""
    before = SAID.read_text(encoding="utf-8").splitlines() if SAID.exists() else []
    with SAID.open("a", encoding="utf-8") as said:
        said.write(message.replace("\n", " ") + "\n")
    if before:
        return f"You said: {message} (and before that: {before[-1]})"
    return f"Hello! You said: {message}"


for line in sys.stdin:
    print(answer(line.rstrip("\n")), flush=True)
