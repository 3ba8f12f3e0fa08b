"""Tells superserve when this interpreter waits for its next message on stdin, and gives back its new lines.

Python imports this before the agent's own code. Whatever fails in here must not show: the agent runs as it would
without it, and the kernel tells superserve what this would have told.
"""


def _watch_stdin():
    import sys

    if sys.version_info < (3, 6):
        return
    import io
    import os
    import select
    import stat
    from _thread import get_ident

    turn = os.environ.get("SUPERSERVE_TURN")
    status = os.fstat(0)
    stdin = sys.stdin
    if not turn or not stat.S_ISFIFO(status.st_mode) or stdin is None or stdin.fileno() != 0:
        return
    pipe = status.st_ino
    # The interpreter starts in its main thread.
    main = get_ident()
    mark = "\x1f"
    meaning = {"n": "\n", "r": "\r", "s": "\u2028", "p": "\u2029", "u": mark}

    def tell(what):
        # Not kept open: agents close descriptors that they don't know, and use their numbers again.
        try:
            fd = os.open(turn, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except Exception:
            return
        try:
            line = '{"type":"%s","pid":%d,"stdin":%d}\n' % (what, os.getpid(), pipe)
            os.write(fd, line.encode())
        except Exception:
            pass
        finally:
            os.close(fd)

    def has_nothing():
        try:
            return not select.select([0], [], [], 0)[0]
        except Exception:
            return False

    def decode(text):
        if mark not in text:
            return text
        first, *rest = text.split(mark)
        return first + "".join(meaning.get(piece[:1], mark + piece[:1]) + piece[1:] for piece in rest)

    class Pipe(io.FileIO):
        # What was told last, and whether it was said that messages are decoded.
        told = None
        told_decodes = None
        decodes = False

        def readinto(self, buffer):
            if self.told_decodes != self.decodes:
                self.told_decodes = self.decodes
                tell("decodes" if self.decodes else "raw")
            # Another thread that reads says nothing of what the main thread does.
            if get_ident() != main:
                return super().readinto(buffer)
            if has_nothing():
                try:
                    sys.stdout.flush()
                except Exception:
                    pass
                self.told = "idle"
                tell("idle")
            try:
                return super().readinto(buffer)
            finally:
                if self.told != "busy":
                    self.told = "busy"
                    tell("busy")

    class Text(io.TextIOWrapper):
        def readline(self, *args):
            return self._decoded(super().readline, args)

        def read(self, *args):
            return self._decoded(super().read, args)

        def _decoded(self, read, args):
            raw.decodes = True
            try:
                text = read(*args)
                while text.endswith(mark):
                    # A size has cut it.
                    more = super().read(1)
                    text += more
                    if not more:
                        break
                return decode(text)
            finally:
                raw.decodes = False

    raw = Pipe(0, "rb", closefd=False)
    raw.name = "<stdin>"
    text = Text(
        io.BufferedReader(raw),
        encoding=stdin.encoding,
        errors=stdin.errors,
        newline="\n",
        line_buffering=stdin.line_buffering,
    )
    text.mode = "r"
    sys.stdin = sys.__stdin__ = text


def _bring_app():
    """Brings `from superserve import App` to where no package superserve is, or a later one that has no App."""
    import os
    import sys

    file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "app.py")

    class Loader:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def create_module(self, spec):
            return None if self.inner is None else self.inner.create_module(spec)

        def exec_module(self, module):
            if self.inner is not None:
                self.inner.exec_module(module)
            if hasattr(module, "App"):
                return
            from importlib.util import module_from_spec, spec_from_file_location

            spec = spec_from_file_location("superserve._app", file)
            app = module_from_spec(spec)
            spec.loader.exec_module(app)
            for name in ("App", "Session", "Stream"):
                if not hasattr(module, name):
                    setattr(module, name, getattr(app, name))

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name != "superserve":
                return None
            from importlib.machinery import ModuleSpec

            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec = find(name, path, target) if find and finder is not Finder else None
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = Loader(spec.loader)
                    return spec
            return ModuleSpec(name, Loader(None), origin=file)

    sys.meta_path.insert(0, Finder)


def _next_one():
    """Runs the sitecustomize that this one hides, if there is one."""
    import os
    import sys

    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder or ".") != here]
    try:
        from _frozen_importlib import module_from_spec
        from _frozen_importlib_external import PathFinder

        spec = PathFinder.find_spec("sitecustomize", sys.path)
    except Exception:
        return
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


for _each in (_watch_stdin, _bring_app):
    try:
        _each()
    except Exception:
        pass
_next_one()
