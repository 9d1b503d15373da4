"""Generated input for the tour and the tests: a trace as skewed, and conversations as odd, as real ones."""

import csv
import gzip
import json
import random
from itertools import accumulate
from pathlib import Path
from typing import Any

__all__ = ["write_conversations", "write_trace"]

_CITIES = ("Zürich", "大阪", "São Paulo", "Αθήνα", "Reykjavík", "القاهرة")
_QUESTIONS = (
    "Is there a table for two in {city} tonight?",
    "Find me the shortest route from {city} to the sea, please.",
    "How warm will {city} be tomorrow? 🌡️",
    "Book the cheapest train to {city}.",
)


def write_trace(path: Path, *, requests: int = 200_000, keys: int = 20_000, skew: float = 0.9, seed: int = 1) -> None:
    """Write a cache trace: ``timestamp,key,size``, gzip CSV. The same arguments give the same trace.

    :param skew: exponent of Zipf's law: the n-th most requested key is requested in proportion to ``n ** -skew``.
    """
    chance = random.Random(seed)  # noqa: S311 - made-up input, no secret
    weights = list(accumulate(rank**-skew for rank in range(1, keys + 1)))
    wanted = chance.choices(range(keys), cum_weights=weights, k=requests)
    with gzip.open(path, "wt", encoding="utf-8", newline="", compresslevel=1) as file:
        rows = csv.writer(file)
        rows.writerow(("timestamp", "key", "size"))
        rows.writerows((moment // 1000, key, 40 + key % 900) for moment, key in enumerate(wanted))


def write_conversations(path: Path, *, conversations: int = 60, seed: int = 1) -> None:
    """Write conversations, gzip JSON lines. The same arguments give the same conversations.

    They include tool calls with a content of None, letters of many scripts, U+0000, and a very long tool result.
    """
    chance = random.Random(seed)  # noqa: S311
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        for number in range(conversations):
            file.write(json.dumps(_conversation(number, chance), ensure_ascii=False) + "\n")


def _conversation(number: int, chance: random.Random) -> dict[str, Any]:
    city = chance.choice(_CITIES)
    question = chance.choice(_QUESTIONS).format(city=city)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are a travel agent. Use the tools; never guess."},
        {"role": "user", "content": question, "context": {"place": {"intent": "ask", "slots": {"city": [city]}}}},
    ]
    for turn in range(chance.randint(1, 6)):
        messages += _tool_turn(f"call_{turn}", city, chance)
    messages.append({"role": "user", "content": "Thank you! 🙏"})
    return {
        "session_id": f"sample-{number}",
        "source": "sample",
        "agent": "travel",
        "domain": "travel",
        "meta": {"reward": 1.0},
        "messages": messages,
    }


def _tool_turn(call: str, city: str, chance: random.Random) -> list[dict[str, Any]]:
    arguments = json.dumps({"city": city, "limit": chance.randint(1, 9)})
    answer = chance.choice(("one result", "raw bytes: \x00\x01\x7f", "line one\r\nline two\u2028three", "x" * 200_000))
    return [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call, "name": "look_up", "arguments": arguments}],
        },
        {"role": "tool", "name": "look_up", "tool_call_id": call, "content": answer},
        {
            "role": "assistant",
            "content": f"I found this for {city}: {answer[:20]}",
            "metadata": {"cost": 0.1, "n": 1e22},
        },
    ]
