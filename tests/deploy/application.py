"""The application of the rehearsals: knows nothing of tokens, and finishes what it has begun when told to end.

/orders/slow takes two seconds, /orders/held until someone asks for /release.
"""

import http.server
import os
import signal
import socket
import sys
import threading
import time

in_flight = 0
released = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global in_flight
        body = str(in_flight).encode()
        if self.path == "/orders/slow":
            in_flight += 1
            time.sleep(2)
            in_flight -= 1
        elif self.path == "/orders/held":
            in_flight += 1
            released.wait(60)
            in_flight -= 1
        elif self.path == "/release":
            released.set()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # "::" is every address, of IPv4 too.
    address_family = socket.AF_INET6 if ":" in os.environ["HOST"] else socket.AF_INET


server = Server((os.environ["HOST"], 8080), Handler)


def end(*_):
    threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, end)
server.serve_forever()
while in_flight:
    time.sleep(0.01)
time.sleep(0.1)  # The last answer is written after the count has gone down.
sys.exit(0)
