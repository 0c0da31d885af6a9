"""Answer over HTTP with an unlearned model that no plain folder can carry, as `guard` with a router of its own.

    python serve.py DIR [PORT]

DIR is what `grun-bench run --save` wrote. POST {"messages": [{"role": "user", "content": "..."}]}, and the answer is
{"content": "..."}. It shows what a server of your own has to do, and no more: `answer` is all of it that matters.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import torch

import grun_bench
from grun_bench.tasks.chats import Chat


def answer(lm, messages, new_tokens=256):
    """What the model says next. It is asked as it was in training; generate() tells it where the prompt ends."""
    turns = [(message["role"], message["content"]) for message in messages]
    question = Chat(turns) if len(turns) > 1 else turns[0][1]
    prompt = torch.tensor([lm.prompts.prompt(question)], device=lm.device)
    said = lm.model.generate(prompt, max_new_tokens=new_tokens, do_sample=False, pad_token_id=lm.pad_id)
    return lm.tokenizer.decode(said[0, prompt.shape[1] :], skip_special_tokens=True).strip()


def server(lm, port):
    """One request after another: a model in memory answers one at a time."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            try:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, told = 200, {"content": answer(lm, asked["messages"])}
            except (ValueError, KeyError, TypeError, IndexError):
                status, told = 400, {"error": 'POST {"messages": [{"role": "user", "content": "..."}]}'}
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return HTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    model = grun_bench.load(sys.argv[1])
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    print(f"http://127.0.0.1:{port}")
    server(model, port).serve_forever()
