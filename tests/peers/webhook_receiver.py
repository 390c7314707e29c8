#!/usr/bin/env python3
"""A receiver of webhooks, written from the plugin's README alone: verifies every signature, answers 500 to the first two
deliveries, 429 with Retry-After to the third, and keeps what it accepted, one JSON object per line.

Usage: webhook_receiver.py PORT SECRET FILE
"""
import hashlib
import hmac
import http.server
import json
import sys
import time

PORT, SECRET, FILE = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
TROUBLE = [(500, {}), (500, {}), (429, {"Retry-After": "1"})]


def keep(**record):
    with open(FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        timestamp = self.headers.get("X-Kiwispray-Timestamp", "")
        signature = self.headers.get("X-Kiwispray-Signature", "")
        expected = "sha256=" + hmac.new(SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        fresh = timestamp.isdigit() and abs(time.time() - int(timestamp)) < 300
        delivery = self.headers.get("X-Kiwispray-Delivery", "")
        if not fresh or not hmac.compare_digest(expected, signature):
            keep(answer=401, delivery=delivery)
            return self.answer(401, {}, b"the signature is wrong")
        document = json.loads(body)
        if document["id"] != delivery or document["kind"] != self.headers.get("X-Kiwispray-Event"):
            return self.answer(400, {}, b"headers and body differ")
        status, headers = TROUBLE.pop(0) if TROUBLE else (200, {})
        if self.path == "/gone":
            status, headers = 410, {}
        keep(answer=status, delivery=delivery, document=document, at=time.time())
        return self.answer(status, headers, b"")

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()
