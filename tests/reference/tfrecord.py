"""TFRecord files and tf.train.Example, byte by byte and one record at a time.

Written from the format's description alone: it shares no code with floodem, and its
CRC-32C is computed bit by bit.
"""

from __future__ import annotations

import gzip
import struct


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def mask(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(message):
    length = struct.pack("<Q", len(message))
    return (
        length
        + struct.pack("<I", mask(crc32c(length)))
        + message
        + struct.pack("<I", mask(crc32c(message)))
    )


def unframe(data):
    """All messages of a file; None for one whose checksum is wrong, and the end where it breaks."""
    messages, at = [], 0
    while at < len(data):
        head = data[at : at + 12]
        if len(head) < 12 or struct.unpack("<I", head[8:])[0] != mask(crc32c(head[:8])):
            break
        (length,) = struct.unpack("<Q", head[:8])
        body = data[at + 12 : at + 12 + length]
        crc = data[at + 12 + length : at + 16 + length]
        if len(crc) < 4 or struct.unpack("<I", crc)[0] != mask(crc32c(body)):
            break
        messages.append(body)
        at += 16 + length
    return messages, at


def varint(value):
    value &= 2**64 - 1
    out = []
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def field(number, content, wire=2):
    if wire == 0:
        return varint(number << 3) + varint(content)
    return varint(number << 3 | wire) + (varint(len(content)) + content if wire == 2 else content)


def int64s(values, *, packed=True):
    if packed:
        return field(3, field(1, b"".join(varint(value) for value in values)))
    return field(3, b"".join(field(1, value, 0) for value in values))


def floats(values, *, packed=True):
    if packed:
        return field(2, field(1, b"".join(struct.pack("<f", value) for value in values)))
    return field(2, b"".join(field(1, struct.pack("<f", value), 5) for value in values))


def texts(values):
    return field(1, b"".join(field(1, value) for value in values))


def example(features):
    """A tf.train.Example of (name, feature) pairs, in this order."""
    entries = b"".join(field(1, field(1, key) + field(2, value)) for key, value in features)
    return field(1, entries)


def historic(name, centre_xyz, *, packed=True):
    return example(
        [(b"center", int64s(centre_xyz, packed=packed)), (b"label_volume_name", texts([name]))]
    )


def newer(name, centre_xyz, *, label=None, segment_id=None, radius=None, packed=True):
    features = [(b"coord", int64s(centre_xyz, packed=packed)), (b"volname", texts([name]))]
    if label is not None:
        features.append((b"label", int64s([label], packed=packed)))
    if segment_id is not None:
        features.append((b"segment_id", int64s([segment_id], packed=packed)))
    if radius is not None:
        features.append((b"radius", floats([radius], packed=packed)))
    return example(features)


def number(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = number(data, at)
        assert key % 8 == 2
        length, at = number(data, at)
        yield key // 8, data[at : at + length]
        at += length


def parse(message):
    """Values of each feature of an Example whose lists are packed."""
    found = {}
    for _, features in fields(message):
        for _, entry in fields(features):
            (_, key), (_, value) = fields(entry)
            ((kind, values),) = fields(value)
            ((_, content),) = fields(values)
            if kind == 1:
                found[key] = content
            elif kind == 2:
                found[key] = struct.unpack(f"<{len(content) // 4}f", content)
            else:
                numbers, at = [], 0
                while at < len(content):
                    one, at = number(content, at)
                    numbers.append(one - 2**64 if one >= 2**63 else one)
                found[key] = tuple(numbers)
    return found


def file_bytes(messages, *, members=0):
    """The bytes of a file, compressed into so many gzip members; 0: plain."""
    framed = [frame(message) for message in messages]
    if not members:
        return b"".join(framed)
    # Members end where they like, also within a record.
    whole = b"".join(framed)
    step = -(-len(whole) // members) or 1
    parts = [whole[at : at + step] for at in range(0, len(whole), step)] or [b""]
    return b"".join(gzip.compress(part, 1) for part in parts)
