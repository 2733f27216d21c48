#!/usr/bin/env python3
"""A web server that is started with its socket, as sockets.yaml shows.

The socket is descriptor 3 (sd_listen_fds(3)) and listens already, also while
no server runs. On SIGTERM the server answers what it has accepted, and ends.
"""
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
    raise SystemExit("start me from sockets.yaml: I have not been passed a socket")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello from slot {os.environ['SENTRYD_SLOT']}, pid {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the answers

    def __init__(self):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=3)
        # All servers of the entry wait for the same connection, and one gets it.
        self.socket.setblocking(False)


server = Server()
# shutdown waits for serve_forever, which this handler interrupts.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.05)
server.server_close()
