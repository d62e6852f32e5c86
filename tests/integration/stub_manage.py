"""Stands in for manage.py where the supervisor alone is under test.

Every role answers its health port, and misbehaves as STUB_<ROLE> says (a word, or several with commas).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMAND = sys.argv[1]
FOLDER = Path(os.environ["SIGNALBOX_STATE_DIR"])


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_: object) -> None:
        pass


def first_time(word: str) -> bool:
    """True once per state folder."""
    try:
        (FOLDER / f"{COMMAND}.{word}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    if COMMAND == "create_login_link":
        print("/login/once/token-of-the-stub/")
    if not COMMAND.startswith("run_"):
        return
    role = COMMAND.removeprefix("run_")
    words = os.environ.get(f"STUB_{role.upper()}", "").split(",")
    over = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: print("got SIGINT", flush=True))
    signal.signal(signal.SIGTERM, lambda *_: print("got SIGTERM", flush=True) or over.set())
    if "ignore-term" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    port = int(sys.argv[sys.argv.index("--port") + 1] if "--port" in sys.argv else os.environ["SIGNALBOX_HEALTH_PORT"])
    server = ThreadingHTTPServer(("127.0.0.1", port), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (FOLDER / f"{role}.pid").write_text(str(os.getpid()))
    print(f"{role} runs", flush=True)
    if "child" in words:
        trap = "trap 'echo child got TERM' TERM; echo child runs; while :; do sleep 0.1; done"
        subprocess.Popen(["/bin/sh", "-c", trap])
    if "orphan" in words:
        # Its parent ends at once; it is deaf and in a session of its own.
        script = FOLDER / "orphan.sh"
        script.write_text(f"trap '' TERM HUP INT; echo $$ > {FOLDER / 'orphan.pid'}; exec sleep 1000\n")
        subprocess.run(["/bin/sh", "-c", f"setsid /bin/sh {script} & exit 0"], check=True)
    if "die" in words and first_time("die"):
        time.sleep(0.5)
        sys.exit(7)
    if "freeze" in words and first_time("freeze"):
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGSTOP)
    over.wait()
    if "slow" in words:
        time.sleep(1)
    print(f"{role} ends", flush=True)


main()
