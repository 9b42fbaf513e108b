"""A child that speaks the protocol of `napari-dkan finetune --events`, well or badly.

    python fake_finetune.py SCENARIO --checkpoint A --out B ... --events

It writes the open checkpoint itself as the result: what counts here is how it behaves.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import threading
import time

COMMANDS: queue.Queue[str] = queue.Queue()
EPOCHS = {"long": 10_000, "deaf": 10_000}


def listen() -> None:
    for line in sys.stdin:
        COMMANDS.put(line.strip())
    COMMANDS.put("stop")  # nobody is left who could ask


def say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def commands(scenario: str) -> bool:
    """Obey what was asked for; whether to go on."""
    global gene
    while not COMMANDS.empty():
        command = COMMANDS.get()
        if command == "pause":
            say("paused")
            while (command := COMMANDS.get()) not in ("resume", "stop"):
                pass
            if command == "resume":
                say("resumed")
        if command == "stop" and scenario != "deaf":
            return False
        if command.startswith("gene"):
            gene = command.removeprefix("gene").strip()
    return True


def misbehave(scenario: str, number: int) -> None:
    if number != 2:
        return
    if scenario == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if scenario == "saved and killed":
        shutil.copy(option("--checkpoint"), option("--out"))
        os.kill(os.getpid(), signal.SIGKILL)
    if scenario == "traceback":
        raise ValueError("the numbers are odd")
    if scenario == "memory":
        raise MemoryError
    if scenario == "nothing":
        sys.exit(0)
    if scenario == "failed":
        say("failed", sentence="The numbers grew without bound.")
        sys.exit(1)
    if scenario == "garbage":
        print("warning: a library has an opinion\n{\n[1, 2]\n{}\nnull", flush=True)
        print('{"event": 7}\n{"event": "epoch", "size": 3}\n{"event": "epo', flush=True)
        sys.stdout.buffer.write(b"\xff\xfe\x00\n" + b"x" * 300_000 + b"\n")
        sys.stdout.flush()
        sys.stderr.write("x" * 500_000 + "\n")


def report() -> dict:
    genes = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8", "MALAT1")
    figures = {"before": 0.31, "after": 0.38, "ridge": 0.35}
    change = {"spots": 49, "pcc_all_before": 0.5, "pcc_all_after": 0.44}
    others = option("--others").split(",") if "--others" in sys.argv else []
    return {
        "genes": [
            {"symbol": g, **{k: v + i / 50 for k, v in figures.items()}}
            for i, g in enumerate(genes)
        ],
        "others": dict.fromkeys(others, change),
    }


def save(path: str) -> bool:
    try:
        shutil.copy(option("--checkpoint"), path)
    except OSError as error:
        say("unsaved", sentence=f"{path} could not be written ({error.strerror}).")
        return False
    return True


def main() -> None:
    scenario = sys.argv[1]
    if scenario == "refused":
        print("a warning\nnapari-dkan: C3 has only ten spots; load more.", file=sys.stderr)
        sys.exit(2)
    sections = option("--sections").split(",")
    threading.Thread(target=listen, daemon=True).start()
    say("reading", section=sections[0], done=0, of=len(sections))
    counts = {"spots": 100, "choosing": 20, "held_out": 44, "between": 8, "genes": 6}
    rest = {"adapt": "decoder", "epochs": 5, "seconds": None, "pcc": 0.3}
    say("started", sections=sections, **counts, **rest)
    epochs = 0
    while epochs < EPOCHS.get(scenario, 5):
        if not commands(scenario):
            break
        epochs += 1
        misbehave(scenario, epochs)
        time.sleep(0.02)
        loss, pcc, left = 1 / epochs, 0.3 + 0.01 * min(epochs, 4), max(0.0, 5 - epochs)
        say("epoch", number=epochs, loss=loss, pcc=pcc, seconds=epochs, left=left, best=epochs)
        if gene:
            values = [None, *range(1, 10_000)]
            for section in sections:
                say("map", section=section, gene=gene, values=values[: SPOTS[section]])
    path = option("--out")
    while not save(path):
        command = COMMANDS.get()
        if not command.startswith("save"):
            say("failed", sentence="The result could not be written.")
            return
        path = command.removeprefix("save").strip()
    better = scenario != "worse"
    verdict = "better on 6 of 6 genes, PCC-ALL 0.31 -> 0.38 on 44 held-out spots"
    if not better:
        verdict = "It did not help: better on 1 of 6 genes, PCC-ALL 0.31 -> 0.30."
    say("finished", better=better, verdict=verdict, path=path, report=report())


gene = ""
SPOTS = json.loads(os.environ.get("FAKE_SPOTS", "{}"))  # of each section
if __name__ == "__main__":
    main()
