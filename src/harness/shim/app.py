"""What the agents of the original import: `from superserve import App`. That package is not to be had any more.

    app = App(name="helper")

    @app.session
    async def run(session):
        async for message, stream in session.turns():
            stream.write(f"you said: {message}")

    app.run()

It speaks frames. What the agent prints by itself goes to stderr, and so to the log.
"""

import json
import os

# A frame's line is at most 1 MiB; a character takes up to six bytes in it.
_PIECE = 128 * 1024


class App:
    """An agent: a name, which superserve knows already, and the function that talks."""

    def __init__(self, name=None):
        self.name = name
        self._talk = None

    def session(self, talk):
        """Marks the async function that is given the session."""
        self._talk = talk
        return talk

    def run(self):
        """Talks until no message follows."""
        if self._talk is None:
            raise RuntimeError("this app has no session: mark an async function with @app.session")
        import asyncio

        async def talk():
            await self._talk(Session())

        asyncio.run(talk())


class Session:
    """The conversation that this process is in."""

    def __init__(self):
        import sys

        sys.stdout.flush()
        self._frames = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        # For other programs that the agent starts, too.
        os.dup2(2, 1)
        self._frame(type="ready")

    def _frame(self, **fields):
        self._frames.write(json.dumps(fields) + "\n")
        self._frames.flush()

    async def turns(self):
        """Each message and where its reply goes; the turn is over when the next one is asked for."""
        import asyncio
        import sys

        while True:
            # The agent's own tasks go on meanwhile.
            line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            if not line:
                return
            try:
                frame = json.loads(line)
                kind = frame["type"]
            except (ValueError, KeyError, TypeError):
                continue
            if kind == "end":
                return
            if kind == "message":
                yield frame.get("content", ""), Stream(self)
                self._frame(type="turn_done")


class Stream:
    """The reply to one message."""

    def __init__(self, session):
        self._session = session

    def write(self, content):
        """A piece of the reply: text, or anything that JSON can say."""
        text = content if isinstance(content, str) else json.dumps(content)
        for begin in range(0, len(text), _PIECE):
            self._session._frame(type="text", content=text[begin : begin + _PIECE])

    def status(self, text):
        """What the agent is about, which is no part of the reply."""
        self._session._frame(type="status", content=text)

    def metadata(self, data):
        """Something for the log."""
        self._session._frame(type="metadata", data=data)
