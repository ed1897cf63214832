"""Reads a block with the SQL and the Python of docs/block-format.md and compares it bit for bit.

    read_block.py DOCUMENT BLOCK_FOLDER EXPECTED_JSON

EXPECTED_JSON: [[{label: value}, [[timestamp, bits of the value as hex, start timestamp], ...]], ...]
Exit code 77: duckdb or pyarrow cannot be imported.
"""

import json
import os
import re
import struct
import sys

try:
    import duckdb
    import pyarrow  # noqa: F401
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)


def extract(document, kind, language):
    pattern = rf"<!-- block-{kind}:begin -->\s*```{language}\n(.*?)```\s*<!-- block-{kind}:end -->"
    return re.search(pattern, document, re.DOTALL).group(1)


def bits(values):
    return [struct.pack(">d", v).hex() for v in values]


def key(labels):
    return json.dumps(labels, sort_keys=True)


def compare(name, got, expected):
    assert set(got) == set(expected), f"{name}: series differ: {set(got) ^ set(expected)}"
    for labels, rows in expected.items():
        assert got[labels] == rows, f"{name}: {labels}: {diff(got[labels], rows)}"
    print(f"{name}: {len(expected)} series, {sum(map(len, expected.values()))} samples are equal bit for bit")


def diff(got, want):
    if len(got) != len(want):
        return f"{len(got)} samples, expected {len(want)}"
    return next((i, g, w) for i, (g, w) in enumerate(zip(got, want)) if g != w)


def with_duckdb(sql):
    table = duckdb.sql(sql).to_arrow_table()
    labels = table["labels"].to_pylist()
    ts, start = table["ts"].to_pylist(), table["start_ts"].to_pylist()
    value = bits(table["value"].to_pylist())
    got = {}
    for i, pairs in enumerate(labels):
        got.setdefault(key(dict(pairs)), []).append([ts[i], value[i], start[i]])
    for rows in got.values():
        rows.sort(key=lambda r: r[0])
    return got


def with_pyarrow(code, folder):
    scope = {}
    exec(code, scope)
    return {
        key(labels): [list(row) for row in zip(ts, bits(values), starts)]
        for labels, ts, values, starts in scope["read_block"](folder)
        if ts
    }


def main():
    document, folder, expected = sys.argv[1:4]
    with open(document, encoding="utf-8") as f:
        document = f.read()
    with open(expected, encoding="utf-8") as f:
        expected = {key(labels): rows for labels, rows in json.load(f)}
    compare("pyarrow", with_pyarrow(extract(document, "python", "python"), folder), expected)
    os.chdir(folder)
    compare("DuckDB", with_duckdb(extract(document, "sql", "sql")), expected)


main()
