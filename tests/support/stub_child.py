"""A reader's process that answers, fails, sleeps or dies by the place that is asked for."""

import json
import os
import sys
import time

from pathencoder.slides.fastslide_child import ANSWER, REQUEST

FACTS = {
    "version": "0",
    "format": "stub",
    "sizes": [[1000, 800], [500, 400]],
    "downsamples": [1.0, 2.0],
    "mpp": [0.5, 0.5],
    "bounds": [0, 0, 0, 0],
    "samples": "uint8",
    "channels": 3,
    "images": 1,
    "planes": 1,
    "power": "",
}
FAILS, SLEEPS, DIES = 100, 200, 300  # left edges


def send(data, *, worked=True):
    sys.stdout.buffer.write(ANSWER.pack(worked, len(data)) + data)
    sys.stdout.buffer.flush()


def main():
    with open(sys.argv[1]) as file:
        facts = FACTS | json.loads(file.read() or "{}")
    if facts.get("sleeps"):
        time.sleep(60)
    send(json.dumps({k: v for k, v in facts.items() if k in FACTS}).encode())
    while len(request := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
        level, left, top, width, height = REQUEST.unpack(request)
        if left == FAILS:
            send(b"Not a JPEG file\n  at reader.cpp:474", worked=False)
        elif left == SLEEPS:
            time.sleep(60)
        elif left == DIES:
            os._exit(9)
        else:
            send(bytes([level, left % 256, top % 256]) * (width * height))
