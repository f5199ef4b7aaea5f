#!/usr/bin/env python3
"""Writes the vectors of this folder from the published files; README.md says which versions.

usage: convert.py WYCHEPROOF BLAKE2 CACOPHONY    (three checked-out repositories)
"""

import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
NOISE = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"


def write(name, head, rows):
    lines = [f"# {line}" for line in head]
    lines += [" ".join(str(field) or "-" for field in row) for row in rows]
    (HERE / name).write_text("\n".join(lines) + "\n")
    print(f"{name}: {len(rows)} lines")


def wycheproof(folder, name, fields):
    """All test cases of one file, with these of their members."""
    content = json.loads((folder / f"testvectors_v1/{name}_test.json").read_text())
    rows = [[test[field] for field in fields] for group in content["testGroups"] for test in group["tests"]]
    if len(rows) != content["numberOfTests"]:
        sys.exit(f"{name}: {len(rows)} test cases, not {content['numberOfTests']}")
    write(f"wycheproof_{name}.txt",
          [f"Wycheproof, testvectors_v1/{name}_test.json, Apache License 2.0 (LICENSE.Apache-2.0).",
           "Changed: only these members, one case a line. See README.md.", " ".join(fields)], rows)


def blake2s(folder):
    """The digests; the rest of the file follows a rule, which is checked here."""
    entries = [dict(line.split(":\t") for line in block.splitlines())
               for block in (folder / "testvectors/blake2s-kat.txt").read_text().strip().split("\n\n")]
    key = bytes(range(32))
    for length, entry in enumerate(entries):
        data = bytes(range(length))
        if (entry["in"], entry["key"]) != (data.hex(), key.hex()):
            sys.exit(f"blake2s: entry {length} does not follow the rule")
        if entry["hash"] != hashlib.blake2s(data, key=key).hexdigest():
            sys.exit(f"blake2s: entry {length} is not what hashlib computes")
    write("blake2s.txt",
          ["BLAKE2, testvectors/blake2s-kat.txt, CC0. See README.md.",
           "The key is 00 01 .. 1f; the input of length n is 00 01 .. n - 1.", "length hash"],
          [(length, entry["hash"]) for length, entry in enumerate(entries)])


def noise(folder):
    """One handshake with the messages after it. Both ends have the same prologue and preshared key."""
    vectors = json.loads((folder / "vectors/cacophony.txt").read_text())["vectors"]
    vector, = (v for v in vectors if v["protocol_name"] == NOISE)
    rows = [("prologue", vector["init_prologue"]), ("psk", vector["init_psks"][0])]
    rows += [(name, vector[name]) for name in
             ("init_static", "init_ephemeral", "resp_static", "resp_ephemeral", "handshake_hash")]
    rows += [("message", message["payload"], message["ciphertext"]) for message in vector["messages"]]
    write("noise_ikpsk2.txt",
          [f"cacophony, vectors/cacophony.txt, {NOISE}, Unlicense. See README.md.",
           "name value, or: message payload ciphertext"], rows)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source = [pathlib.Path(path) for path in sys.argv[1:]]
    wycheproof(source[0], "x25519", ("tcId", "private", "public", "shared"))
    for name in ("chacha20_poly1305", "xchacha20_poly1305"):
        wycheproof(source[0], name, ("tcId", "result", "key", "iv", "aad", "msg", "ct", "tag"))
    blake2s(source[1])
    noise(source[2])


main()
