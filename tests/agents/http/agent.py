"""An HTTP agent that answers in the way that the first word of a message names."""

import http.server
import json
import os
import sys
import threading


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, kind, body, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("a line for the log", flush=True)
        word, _, rest = request["prompt"].partition(" ")
        if word == "json":
            self.answer("application/json", json.dumps({"output": rest}).encode())
        elif word == "text":
            self.answer("text/plain", rest.encode())
        elif word == "request":
            request["path"] = self.path
            request["port"] = os.environ["PORT"]
            self.answer("application/json", json.dumps(request, sort_keys=True).encode().replace(b'"message"', b'"said"'))
        elif word == "chunks":
            self.begin("text/plain; charset=utf-8")
            for piece in (b"a\xe2", b"\x82", b"\xacb"):
                self.chunk(piece)
            self.chunk("")
        elif word == "ndjson":
            self.begin("application/x-ndjson")
            self.chunk('{"type":"text","content":"on')
            self.chunk('e "}\n{"type":"tool_start","name":"look","input":{}}\n{"type":"tool_end","duration_ms":5}\n')
            self.chunk('{"type":"text","content":"two"}\n{"type":"turn_done"}\n')
            self.chunk("")
        elif word == "sse":
            self.begin("text/event-stream")
            self.chunk('data: {"content":"one "}\n\ndata: {"type":"text","content":"two"}\n\n')
            # The connection stays: the answer is over all the same.
            self.chunk("data: [DONE]\n\n")
            threading.Event().wait()
        elif word == "wait":
            self.begin("text/plain")
            self.chunk("begun")
            threading.Event().wait()
        elif word == "fail":
            self.answer("text/plain", b"the model is away", 500)
        elif word == "crash":
            self.begin("text/plain")
            self.chunk("half a reply")
            print("last words", file=sys.stderr, flush=True)
            os._exit(3)
        elif word == "lose":
            self.begin("text/plain")
            self.chunk("half a reply")
            self.close_connection = True
        elif word == "keep":
            with open("kept", "a") as kept:
                print(rest, file=kept)
            self.answer("text/plain", open("kept", "rb").read())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Agent).serve_forever()
