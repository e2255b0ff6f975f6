"""Prints every row of an archive as a line of JSON, in the log's order, as DuckDB reads it; then what pyarrow counts.

    read.py DIR [FIELD ...]     all columns, or these
"""

import json
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.compute as pc
import pyarrow.dataset as ds

NANOS = "epoch_ns({0})"
EVENTS = "list_transform(events, lambda e: struct_pack(time := epoch_ns(e.time), name := e.name, attributes := e.attributes, dropped := e.dropped_attributes))"


def plain(value):
    if isinstance(value, Decimal):
        return str(value.normalize())
    raise TypeError(type(value))


def main() -> None:
    root, fields = Path(sys.argv[1]), sys.argv[2:]
    files = f"{root}/**/*.parquet"
    db = duckdb.connect()
    db.execute("SET memory_limit = '4GB'; SET threads = 2; SET preserve_insertion_order = false")
    times = ", ".join(f"{NANOS.format(name)} AS {name}" for name in ("start_time", "end_time", "received_at"))
    what = ", ".join(fields) if fields else f"* REPLACE ({times}, {EVENTS} AS events)"
    rows = db.execute(f"SELECT {what} FROM read_parquet('{files}', hive_partitioning = false) ORDER BY log_offset")
    names = [column[0] for column in rows.description]
    while chunk := rows.fetchmany(1_000):
        for row in chunk:
            print(json.dumps(dict(zip(names, row)), default=plain))

    # The same files by another reader: partitions by their names, statistics and filters by theirs.
    table = ds.dataset(str(root), format="parquet", partitioning="hive", exclude_invalid_files=True)
    counted = table.to_table(columns=["span_id", "log_offset", "date"])
    last = {
        "rows": counted.num_rows,
        "offsets": pc.count_distinct(counted["log_offset"]).as_py() if counted.num_rows else 0,
        "dates": sorted({str(date) for date in counted["date"].unique().to_pylist()}),
    }
    print(json.dumps({"pyarrow": last}))


if __name__ == "__main__":
    main()
