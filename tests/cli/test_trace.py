"""Replaying cache traces: the hit ratio is that of an exact LRU."""

import csv
import gzip
import os
from collections import OrderedDict
from pathlib import Path

import pytest

from agent_service.cli import main
from agent_service.cli.sample import write_trace
from tests.cli.conftest import Command, GzipWriter


def lru_hits(path: Path, entries: int) -> tuple[int, int]:
    """Requests and hits of the textbook LRU, written without anything of the package."""
    kept: OrderedDict[str, None] = OrderedDict()
    requests = hits = 0
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            requests += 1
            if row["key"] in kept:
                hits += 1
                kept.move_to_end(row["key"])
            else:
                kept[row["key"]] = None
                if len(kept) > entries:
                    kept.popitem(last=False)
    return requests, hits


@pytest.mark.parametrize("entries", [1, 100, 1000, 5000])
def test_a_replayed_trace_hits_exactly_as_often_as_a_textbook_lru(entries: int, tmp_path: Path, as_json: Command):
    trace = tmp_path / "trace.csv.gz"
    write_trace(trace, requests=20_000, keys=4000)
    requests, hits = lru_hits(trace, entries)

    found = as_json("replay", "--trace", trace, "--entries", entries)

    assert (found["requests"], found["hits"], found["hit_ratio"]) == (requests, hits, round(hits / requests, 6))
    assert set(found) == {"requests", "hits", "hit_ratio", "seconds"}


@pytest.mark.skipif("AGENT_SERVICE_DATA" not in os.environ, reason="AGENT_SERVICE_DATA names no folder of real data")
@pytest.mark.parametrize(("entries", "ratio"), [(100, 0.4715), (1000, 0.6413), (5000, 0.7332), (10_000, 0.7751)])
def test_the_twitter_trace_hits_as_often_as_published_for_an_exact_lru(entries: int, ratio: float, as_json: Command):
    trace = Path(os.environ["AGENT_SERVICE_DATA"], "cache", "twitter_cluster52.csv.gz")

    found = as_json("replay", "--trace", trace, "--entries", entries)

    assert round(found["hit_ratio"], 4) == ratio


def test_a_trace_without_sizes_or_without_requests_is_a_trace_too(write_gzip: GzipWriter, as_json: Command):
    some = write_gzip("some.csv.gz", "timestamp,key\r\n0,a\r\n1,a\r\n2,é:x\r\n")
    none = write_gzip("none.csv.gz", "timestamp,key\n")

    found, nothing = as_json("replay", "--trace", some), as_json("replay", "--trace", none)

    assert (found["requests"], found["hits"]) == (3, 1)
    assert (nothing["requests"], nothing["hits"], nothing["hit_ratio"]) == (0, 0, 0.0)


def test_a_person_reads_plain_lines_with_the_speed(write_gzip: GzipWriter, capsys: pytest.CaptureFixture[str]):
    trace = write_gzip("trace.csv.gz", "timestamp,key\n" + "0,a\n" * 1500)

    assert main(["replay", "--trace", str(trace), "--entries", "7"]) == 0

    shown = capsys.readouterr()
    lines = dict(line.rsplit(maxsplit=1) for line in shown.out.splitlines())
    assert (lines["requests"], lines["hits"], lines["hit ratio"]) == ("1,500", "1,499", "0.9993")
    assert {"seconds", "requests per second"} <= set(lines)
    assert shown.err == "Replaying trace.csv.gz with 7 entries ...\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("time,name\n0,a\n", "line 1: the header must be timestamp,key"),
        ("", "line 1: the header must be timestamp,key"),
        ("timestamp,key\n0,a\n1\n", "line 3: 1 columns where the header has 2"),
        ("timestamp,key\n0,\n", "line 2: key is empty"),
        ("timestamp,key\n0,a\n0," + "k" * 9000 + "\n", "line 3: key has 9000 bytes"),
        ('timestamp,key\n0,"a\n', "line 2: not CSV"),
        (b"timestamp,key\n0,\xff\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_its_name_and_line(
    content: str | bytes, complaint: str, write_gzip: GzipWriter, refused
):
    trace = write_gzip("bad.csv.gz", content)

    line = refused("replay", "--trace", trace)

    assert f"{trace}: " in line
    assert complaint in line


def test_a_plain_trace_is_a_trace_too(tmp_path: Path, as_json: Command):
    plain = tmp_path / "plain.csv"
    plain.write_text("timestamp,key\n0,a\n1,a\n2,b\n")

    found = as_json("replay", "--trace", plain)

    assert (found["requests"], found["hits"]) == (3, 1)


def test_a_missing_or_cut_file_is_refused_with_a_remedy(tmp_path: Path, refused):
    cut, torn = tmp_path / "cut.csv.gz", tmp_path / "torn.csv.gz"
    write_trace(cut, requests=5000)
    torn.write_bytes(cut.read_bytes()[:11])
    cut.write_bytes(cut.read_bytes()[:-2000])

    missing = refused("replay", "--trace", tmp_path / "none.csv.gz")

    assert "cannot be opened (No such file or directory); check the path" in missing
    assert "cut off or damaged" in refused("replay", "--trace", cut)
    assert "cut off or damaged" in refused("replay", "--trace", torn)
    assert "cannot be opened (Is a directory)" in refused("replay", "--trace", tmp_path)
