"""Partitions on a real Postgres: made ahead, dropped when their time is over, never too early."""

import threading
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from sqlalchemy import text

from aggregator.config import DAY_S, Retention
from aggregator.profiles.partitions import drop_partitions, make_partitions, time_tables

NOW = datetime(2026, 11, 22, 17, 30, tzinfo=timezone.utc)
KEEP = Retention()
ADD_PROFILE = """
    INSERT INTO node_prof VALUES (:tier_s, :bucket, 1, 1, 1, 0, 10000, 1, 'x')
"""


@pytest.fixture
def make(database):
    """Makes the partitions needed at a time, in one transaction."""

    def make_at(now, retention=KEEP):
        with database.begin() as connection:
            return make_partitions(connection, now, retention)

    return make_at


@pytest.fixture
def attached(rows):
    """Names of all partitions of a table."""

    def names(table):
        return [
            name
            for (name,) in rows(
                "SELECT inhrelid::regclass::text FROM pg_inherits "
                "WHERE inhparent = CAST(:table AS regclass) ORDER BY 1",
                table=table,
            )
        ]

    return names


def test_partitions_are_made_for_what_may_come(make, attached):
    made = make(NOW)

    assert attached("node_prof_10") == [f"node_prof_10_20261122{h}" for h in range(15, 24)]
    assert attached("node_prof_60") == [f"node_prof_60_202611{d}" for d in range(20, 25)]
    assert attached("node_overhead") == [f"node_overhead_202611{d}" for d in range(20, 25)]
    assert len(made) == 9 + 5 + 5
    assert make(NOW) == []


def test_an_hour_later_one_more_is_made(make):
    make(NOW)

    assert make(NOW + timedelta(hours=1)) == ["node_prof_10_2026112300"]


@pytest.mark.parametrize("age", [timedelta(0), timedelta(hours=48), timedelta(minutes=-10)])
def test_every_accepted_time_has_a_partition(make, rows, age):
    make(NOW)

    rows(ADD_PROFILE, tier_s=60, bucket=NOW - age)
    if age < timedelta(hours=2):
        rows(ADD_PROFILE, tier_s=10, bucket=NOW - age)


def test_partitions_keep_index_storage_and_key(make, rows):
    make(NOW)

    assert rows(
        "SELECT attstorage::text FROM pg_attribute "
        "WHERE attrelid = 'node_prof_60_20261122'::regclass AND attname = 'data'"
    ) == [("e",)]
    assert rows(
        "SELECT count(*)::int FROM pg_index i JOIN pg_inherits h ON h.inhrelid = i.indexrelid "
        "WHERE i.indrelid = 'node_prof_60_20261122'::regclass"
    ) == [(2,)]


def test_old_partitions_are_dropped_and_new_ones_stay(make, attached, database, rows):
    make(NOW)
    later = NOW + timedelta(hours=4)
    make(later)
    rows(ADD_PROFILE, tier_s=10, bucket=NOW)

    dropped = drop_partitions(database, later, KEEP)

    # 21:30 minus 2 hours and the grace: what ended by 19:15 goes.
    assert dropped == [f"node_prof_10_20261122{h}" for h in range(15, 19)]
    assert attached("node_prof_10")[0] == "node_prof_10_2026112219"
    assert rows("SELECT to_regclass('node_prof_10_2026112217')") == [(None,)]
    assert rows("SELECT count(*)::int FROM node_prof") == [(0,)]
    assert drop_partitions(database, later, KEEP) == []


def test_each_table_has_its_own_retention(make, attached, database):
    keep = Retention(profiles_60s_s=3 * DAY_S, overhead_s=DAY_S)
    make(NOW)

    drop_partitions(database, NOW + timedelta(days=2), keep)

    assert attached("node_prof_10") == []
    assert attached("node_prof_60")[0] == "node_prof_60_20261121"
    assert attached("node_overhead")[0] == "node_overhead_20261123"


def test_rows_that_wait_for_compaction_are_kept_for_a_day(make, attached, database, rows):
    make(NOW)
    rows("INSERT INTO dirty_bucket VALUES (60, :at, 1)", at=NOW)

    drop_partitions(database, NOW + timedelta(hours=5), KEEP)
    assert attached("node_prof_10")[0] == "node_prof_10_2026112217"

    drop_partitions(database, NOW + timedelta(hours=30), KEEP)
    assert "node_prof_10_2026112217" not in attached("node_prof_10")


def test_partition_left_detached_is_dropped(make, database, rows):
    make(NOW)
    rows("ALTER TABLE node_prof_10 DETACH PARTITION node_prof_10_2026112215")

    assert "node_prof_10_2026112215" in drop_partitions(database, NOW + timedelta(hours=4), KEEP)
    assert rows("SELECT to_regclass('node_prof_10_2026112215')") == [(None,)]


def test_interrupted_detach_is_finished(make, database, postgres_url, rows):
    make(NOW)
    blocker = database.connect()
    blocker.execute(text("SELECT count(*) FROM node_prof_10"))
    with (
        psycopg.connect(
            postgres_url.replace("+psycopg", ""), autocommit=True, options="-c lock_timeout=200"
        ) as other,
        pytest.raises(psycopg.errors.LockNotAvailable),
    ):
        other.execute(
            "ALTER TABLE node_prof_10 DETACH PARTITION node_prof_10_2026112215 CONCURRENTLY"
        )
    blocker.close()
    assert rows("SELECT count(*)::int FROM pg_inherits WHERE inhdetachpending") == [(1,)]

    assert "node_prof_10_2026112215" in drop_partitions(database, NOW + timedelta(hours=4), KEEP)


def test_tables_of_others_are_left_alone(make, database, rows):
    make(NOW)
    rows("CREATE TABLE node_prof_10_notes (x int)")
    rows("CREATE TABLE node_prof_100_2026112215 (x int)")

    drop_partitions(database, NOW + timedelta(days=300), KEEP)

    assert rows("SELECT to_regclass('node_prof_10_notes') IS NOT NULL") == [(True,)]
    assert rows("SELECT to_regclass('node_prof_100_2026112215') IS NOT NULL") == [(True,)]


def test_several_processes_at_once(make, attached, database):
    failures = []

    def work():
        try:
            make(NOW)
            drop_partitions(database, NOW + timedelta(hours=4), KEEP)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert attached("node_prof_10")[-1] == "node_prof_10_2026112223"


def test_partition_attached_again_while_it_is_dropped_stays(make, attached, database):
    make(NOW)
    first = "node_prof_10_2026112215"
    with database.begin() as connection:
        connection.execute(text(f"ALTER TABLE node_prof_10 DETACH PARTITION {first}"))
    dropped = []
    after = NOW + timedelta(hours=1, minutes=20)  # only the first partition's time is over

    def drop():
        dropped.extend(drop_partitions(database, after, KEEP))

    thread = threading.Thread(target=drop)
    with database.begin() as connection:
        assert make_partitions(connection, NOW, KEEP) == [first]
        thread.start()
        # Until it waits for what this transaction holds; the check would find it attached later.
        thread.join(0.5)
        assert thread.is_alive()
    thread.join()

    assert dropped == []
    assert first in attached("node_prof_10")


def test_names_tell_the_time():
    for table in time_tables(KEEP):
        for start in table.starts(NOW):
            assert table.partition_start(table.partition_name(start)) == start
        assert table.partition_start(f"{table.name}_x") is None
