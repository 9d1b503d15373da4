"""The wire format: lossless, strict about what it did not write, and readable for ever."""

import struct
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_service.core import envelope as wire
from agent_service.core.envelope import read_head
from agent_service.core.errors import UndecodableError
from tests.core.whole_envelopes import Envelope, pack, unpack

# Written by the first release. Never edit a line: entries of old processes must stay readable.
GOLDEN = {
    "30": Envelope(b"0"),
    "2d39323233333732303336383534373735383038": Envelope(b"-9223372036854775808"),
    "01007b2261223a317d": Envelope(b'{"a":1}'),
    "01017b22247365742261223a317d": Envelope(b'{"$set"a":1}', tagged=True),
    "010c0000018bcfe568000000018bcfe6cf906e756c6c": Envelope(b"null", False, 1_700_000_000.0, 1_700_000_092.048),
    "0110000100017403000102226122": Envelope(b'"a"', tags={"t": b"\x00\x01\x02"}),
    "0111000200017400000575736572730200ff5b5d": Envelope(b"[]", True, tags={"t": b"", "users": b"\x00\xff"}),
    "0102000000227801534a24009400d8f80c65": Envelope(b'"' + b"a" * 32 + b'"'),
    "011f0000018bcfe568000000018bcfe56bff0001000174016b000000227801534a22009400db280c85": Envelope(
        b'"' + b"b" * 32 + b'"', True, 1_700_000_000.0, 1_700_000_001.023, {"t": b"k"}
    ),
    # Entries with tokens; the token of the namespace has no name.
    "01140000018bcfe5680000010000080102030405060708226122": Envelope(
        b'"a"', False, 1_700_000_000.0, tags={"": bytes(range(1, 9))}
    ),
    "01150000018bcfe568000002000008010203040506070800"
    "067573657220370811121314151617187b22247365742261223a317d": Envelope(
        b'{"$set"a":1}', True, 1_700_000_000.0, tags={"": bytes(range(1, 9)), "user 7": bytes(range(17, 25))}
    ),
    "011c0000018bcfe568000000018bcfe6cf900001000008010203040506070800": Envelope(
        b"\x00", False, 1_700_000_000.0, 1_700_000_092.048, {"": bytes(range(1, 9))}
    ),
    # Counters with tokens, as increments write them and as a load with staleness does.
    "0130000100000801020304050607083432": Envelope(b"42", tags={"": bytes(range(1, 9))}),
    "0130000200000801020304050607080001740811121314151617182d37": Envelope(
        b"-7", tags={"": bytes(range(1, 9)), "t": bytes(range(17, 25))}
    ),
    "013c0000018bcfe568000000018bcfe6cf900001000008010203040506070830": Envelope(
        b"0", False, 1_700_000_000.0, 1_700_000_092.048, {"": bytes(range(1, 9))}
    ),
    # An exception in place of a result.
    "01540000018bcfe56800000100000801020304050607085b226d2e4e6f74466f756e64222c5b375d5d": Envelope(
        b'["m.NotFound",[7]]', False, 1_700_000_000.0, tags={"": bytes(range(1, 9))}, raised=True
    ),
}

stamps = st.none() | st.integers(-(2**40), 2**45).map(lambda millis: millis / 1000)
tags = st.dictionaries(st.text(max_size=8), st.binary(max_size=16), max_size=4)
payloads = st.binary(max_size=200) | st.integers(-(2**66), 2**66).map(lambda number: b"%d" % number)
envelopes = st.builds(Envelope, payloads, st.booleans(), stamps, stamps, tags)


@pytest.mark.parametrize(("stored", "expected"), GOLDEN.items())
def test_what_the_first_release_wrote_is_still_read(stored, expected):
    data = bytes.fromhex(stored)

    assert unpack(data) == expected
    assert read_head(data).tags == expected.tags


@pytest.mark.parametrize(("stored", "envelope"), GOLDEN.items())
def test_what_is_written_now_is_what_processes_of_the_first_release_can_read(stored, envelope):
    data = bytes.fromhex(stored)
    is_compressed = data[0] == 1 and data[1] & 2

    assert is_compressed or pack(envelope) == data


@given(envelopes, st.sampled_from([None, 0, 10, 1000]))
@example(Envelope(b""), 0)
@example(Envelope(b"x" * 100), 0)
def test_what_is_packed_comes_back(envelope, compress_above):
    data = pack(envelope, compress_above=compress_above)

    assert unpack(data) == envelope


@given(st.integers(-(2**63), 2**63 - 1))
@example(2**63 - 1)
@example(-(2**63))
def test_an_integer_of_64_bits_is_stored_as_its_digits(number):
    assert pack(Envelope(b"%d" % number)) == b"%d" % number


@pytest.mark.parametrize("payload", [b"9223372036854775808", b"-9223372036854775809", b"1.5", b"-0", b"007", b"1e5"])
def test_no_other_number_is_stored_bare(payload):
    data = pack(Envelope(payload))

    assert data == b"\x01\x00" + payload


def test_stamps_are_kept_to_the_millisecond():
    envelope = unpack(pack(Envelope(b"{}", created_at=1_700_000_000.123456, stale_at=1_700_000_000.9999)))

    assert (envelope.created_at, envelope.stale_at) == (1_700_000_000.123, 1_700_000_001.0)


def test_a_large_payload_is_compressed_only_when_asked_and_only_when_it_gets_smaller():
    text, noise = b'"' + b"word " * 400 + b'"', bytes(range(256)) * 2

    assert len(pack(Envelope(text), compress_above=1000)) < 100
    assert len(pack(Envelope(text))) == len(text) + 2
    assert len(pack(Envelope(text), compress_above=len(text))) == len(text) + 2
    assert pack(Envelope(noise[:256]), compress_above=10) == b"\x01\x00" + noise[:256]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"{}", "unknown format 0x7b"),
        (b"\x02\x00{}", "unknown format 0x02"),
        (b"\x80\x04K\x01.", "unknown format 0x80"),
        (b"\x01", "truncated"),
        (b"\x01\x80{}", "unknown flags 0x80"),
        (b"\x01\x04\x00\x00", "truncated"),
        (b"\x01\x10\x00\x01\x00\x05ab", "truncated"),
        (b"\x01\x10\x00\x01\x00\x01\xff\x00", "damaged"),
        (b"\x01\x10\xff\xff", "truncated"),
        (b"\x01\x10\x00\x01\x00\x01t\x05ab", "truncated"),
        (b"\x01\x02\x00\x00\x00\x09abc", "damaged"),
        (b"12x", "should be an integer"),
        (b"-", "should be an integer"),
        (b"1.5", "should be an integer"),
        (b"9223372036854775808", "should be an integer"),
        (b"0" * 30, "should be an integer"),
    ],
)
def test_bytes_of_others_are_refused(data, said):
    with pytest.raises(UndecodableError, match=said):
        unpack(data)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x01" + tail))
def test_hostile_bytes_raise_nothing_but_our_error(data):
    try:
        envelope = unpack(data)
    except UndecodableError:
        return

    assert unpack(pack(envelope)) == envelope


@given(envelopes, st.data())
def test_a_truncated_header_is_never_read_as_another_value(envelope, data):
    whole = pack(envelope._replace(payload=b""))

    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    with pytest.raises(UndecodableError):
        unpack(cut)


def test_a_decompression_bomb_is_refused_without_inflating_it():
    bomb = zlib.compress(b"\x00" * (80 << 20), 9)
    honest = b"\x01\x02" + struct.pack(">I", 80 << 20) + bomb
    lying = b"\x01\x02" + struct.pack(">I", 10) + bomb

    tracemalloc.start()
    for data in (honest, lying):
        with pytest.raises(UndecodableError, match="inflate"):
            unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 10 << 20


@pytest.mark.parametrize("damage", [lambda body: body[:-6], lambda body: body + b"more"], ids=["cut", "longer"])
def test_a_compressed_body_that_is_cut_or_goes_on_is_refused(damage):
    data = pack(Envelope(b"text " * 100), compress_above=10)

    with pytest.raises(UndecodableError, match="do not inflate to the 500 bytes"):
        unpack(damage(data))


def test_a_compressed_body_of_another_length_than_it_claims_is_refused():
    data = pack(Envelope(b"text " * 100), compress_above=10)
    claims_one_more = data[:2] + (501).to_bytes(4, "big") + data[6:]

    with pytest.raises(UndecodableError, match="do not inflate to the 501 bytes"):
        unpack(claims_one_more)


def test_a_payload_too_large_to_inflate_again_is_stored_uncompressed(monkeypatch):
    monkeypatch.setattr(wire, "MAX_COMPRESSIBLE", 100)

    assert pack(Envelope(b"a" * 101), compress_above=10) == b"\x01\x00" + b"a" * 101
    assert len(pack(Envelope(b"a" * 100), compress_above=10)) < 100
