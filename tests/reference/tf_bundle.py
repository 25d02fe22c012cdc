"""Writes TensorFlow V2 bundles, so that reading them can be tested without TensorFlow's help."""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np

TYPE_NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9}
RESTART_EVERY = 16


def masked_crc(data):
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, payload):
    if isinstance(payload, bytes):
        return varint(number << 3 | 2) + varint(len(payload)) + payload
    return varint(number << 3) + varint(payload)


def fixed32(number, value):
    return varint(number << 3 | 5) + struct.pack("<I", value)


def entry(array, offset):
    data = array.tobytes()
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    return (
        field(1, TYPE_NUMBERS[array.dtype.name])
        + field(2, shape)
        + field(4, offset)
        + field(5, len(data))
        + fixed32(6, masked_crc(data))
    )


def block(items):
    out, restarts, before = bytearray(), [], b""
    for count, (key, value) in enumerate(items):
        shared = 0
        if count % RESTART_EVERY == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        before = key
    for restart in restarts or [0]:
        out += struct.pack("<I", restart)
    out += struct.pack("<I", len(restarts or [0]))
    return bytes(out)


def write_bundle(prefix, variables):
    """Write PREFIX.index and PREFIX.data-00000-of-00001 with these arrays by name."""
    data, entries = bytearray(), [(b"", field(1, 1) + field(3, field(1, 1)))]
    for name in sorted(variables):
        array = np.asarray(variables[name], order="C")
        entries.append((name.encode(), entry(array, len(data))))
        data += array.tobytes()
    table = bytearray()

    def add(content):
        handle = varint(len(table)) + varint(len(content))
        table.extend(content + b"\0" + struct.pack("<I", masked_crc(content + b"\0")))
        return handle

    half = len(entries) // 2
    index = [(part[-1][0], add(block(part))) for part in (entries[:half], entries[half:]) if part]
    meta = add(block([]))
    top = add(block(index))
    footer = (meta + top).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    prefix.with_name(prefix.name + ".index").write_bytes(bytes(table) + footer)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(bytes(data))


def conv_stack_variables(depth, features, *, seed=0):
    """Random variables named as a checkpoint of a residual conv stack names them."""
    random = np.random.default_rng(seed)

    def layer(name, size, channels_in, channels_out):
        shape = (size, size, size, channels_in, channels_out)
        return {
            f"seed_update/{name}/weights": random.normal(0, 0.1, shape).astype(np.float32),
            f"seed_update/{name}/biases": random.normal(0, 0.1, channels_out).astype(np.float32),
        }

    variables = {"global_step": np.array(1234, np.int64), **layer("conv0_a", 3, 2, features)}
    variables |= layer("conv0_b", 3, features, features)
    for module in range(1, depth):
        variables |= layer(f"conv{module}_a", 3, features, features)
        variables |= layer(f"conv{module}_b", 3, features, features)
    return variables | layer("conv_lom", 1, features, 1)
