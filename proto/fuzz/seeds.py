"""Writes each recorded frame (first argument: their directory) into a corpus (second argument)."""

import base64
import json
import pathlib
import sys

recordings, corpus = map(pathlib.Path, sys.argv[1:])
for recording in recordings.glob("*.json"):
    for number, frame in enumerate(json.loads(recording.read_text())["frames"]):
        data = base64.b64decode(frame["data"])
        header = bytes([frame["type"]]) + len(data).to_bytes(3, "big")
        (corpus / f"{recording.stem}-{number}").write_bytes(header + data)
