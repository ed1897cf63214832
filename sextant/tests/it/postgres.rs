//! PostgreSQL's protocol as its clients speak it: psql, psycopg and tokio-postgres against the binary.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use crate::binary::{Sextant, remote_write};

/// 2026-01-01T00:00:00Z in milliseconds.
const T0: i64 = 1_767_225_600_000;

/// A process with the samples of `body`.
fn filled(folder: &Path) -> Sextant {
    let sextant = Sextant::start(folder, &["--agent.host-metrics=false"], None);
    assert_eq!(sextant.post("/api/v1/push", "application/x-protobuf", body()).unwrap().0, 204);
    sextant
}

/// Two metrics of two pods, a sample every 15 s for 15 minutes.
fn body() -> Vec<u8> {
    let series = |name: &str, pod: &str, factor: f64, add: f64| {
        let labels = vec![("__name__", name.to_owned()), ("job", "shop".to_owned()), ("pod", pod.to_owned())];
        let samples = (0..60).map(|i| (T0 + i * 15_000, i as f64 * factor + add)).collect();
        (labels, samples)
    };
    remote_write(&[
        series("cpu_usage", "a", 1.0, 0.0),
        series("cpu_usage", "b", 2.0, 0.0),
        series("mem_usage", "a", 1.0, 0.5),
        series("mem_usage", "b", 2.0, 0.5),
    ])
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(sextant: &Sextant, more: &str) -> Result<Client, Error> {
    let (host, port) = sextant.postgres.split_once(':').unwrap();
    let config = format!("host={host} port={port} user=tester {more}");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

fn code(error: &Error) -> &str {
    error.code().map_or("", |c| c.code())
}

/// Rows of a simple query, as texts joined with `|`.
async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    messages
        .iter()
        .filter_map(|m| match m {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).unwrap_or("")).collect::<Vec<_>>().join("|"))
            }
            _ => None,
        })
        .collect()
}

async fn fails(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(answer) => panic!("{sql}: {answer:?}"),
        Err(e) => code(&e).to_owned(),
    }
}

/// psql on a statement or a command of its own; `None` where there is no psql.
fn psql(sextant: &Sextant, args: &[&str], input: &str) -> Option<(String, String)> {
    let (host, port) = sextant.postgres.split_once(':').unwrap();
    let child = Command::new("psql")
        .args(["-X", "-A", "-h", host, "-p", port, "-U", "tester", "-d", "anonymous"])
        .args(args)
        .env("PGCONNECT_TIMEOUT", "30")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: there is no psql on the PATH");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Some((text(&out.stdout), text(&out.stderr)))
}

#[test]
fn psql_asks_and_describes() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    let run = |command: &str| psql(&sextant, &["-c", command], "");
    let Some((version, error)) = run("select version()") else { return };
    assert!(version.contains("Sextant") && error.is_empty(), "{version}{error}");
    for (command, expected) in [
        ("\\dt", &["public|metrics|table", "public|samples|table"][..]),
        ("\\d", &["public|metrics|table", "public|samples|table"]),
        (
            "\\d samples",
            &["time|timestamp with time zone", "value|double precision", "labels|jsonb", "pod|text"],
        ),
        ("\\d+ metrics", &["name|text", "sample_count|bigint"]),
        ("\\l", &["anonymous|tester|UTF8"]),
        ("\\dn", &["public|"]),
        ("\\df", &["public|promql|SETOF samples"]),
        ("\\du", &["tester|"]),
        ("\\dT int*", &["pg_catalog|bigint|"]),
        ("\\d pg_class", &["relname|name"]),
        ("\\conninfo", &["connected to database \"anonymous\""]),
    ] {
        let (out, error) = run(command).unwrap();
        for part in expected {
            assert!(out.contains(part) && error.is_empty(), "{command}: {out}{error}");
        }
    }
    // What is not here is said to be so, without an error.
    for command in [
        "\\di", "\\dv", "\\dm", "\\ds", "\\dE", "\\dx", "\\dp", "\\db", "\\dew", "\\des", "\\dRp", "\\do",
        "\\dF", "\\dL", "\\dC", "\\dc", "\\dy", "\\dX", "\\dA", "\\ddp", "\\dO", "\\dD", "\\dP", "\\drds",
        "\\dT", "\\dt+", "\\df+", "\\dS",
    ] {
        let (_, error) = run(command).unwrap();
        assert!(!error.contains("ERROR"), "{command}: {error}");
    }
    let script = "begin;\nselect pod, max(value) from samples where name = 'cpu_usage' group by pod order by pod;\ncommit;\n\\set FETCH_COUNT 7\nselect count(*) from (select * from samples) s;\nselect nothing from samples;\nselect 1 as after;\n";
    let (out, error) = psql(&sextant, &["-t"], script).unwrap();
    assert!(out.contains("a|59\nb|118\n") && out.contains("240\n") && out.contains("1\n"), "{out}{error}");
    assert!(
        error.contains("column \"nothing\" does not exist")
            && error.contains(": select nothing from samples"),
        "{error}"
    );
}

#[test]
fn psycopg_binds_and_reads_every_type() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    let (host, port) = sextant.postgres.split_once(':').unwrap();
    let program = r#"
import sys, datetime, decimal, math
import psycopg
utc = datetime.timezone.utc
t0 = datetime.datetime(2026, 1, 1, tzinfo=utc)
connection = psycopg.connect(host=sys.argv[1], port=sys.argv[2], user="tester", dbname="anonymous", autocommit=True)
connection.prepare_threshold = 1
for binary in (False, True, False, True):
    def rows(sql, values=(), **more):
        return connection.execute(sql, values, binary=binary, **more).fetchall()
    got = rows("select %s, %s, %s, %s, %s, %s", (1, 1.5, "x", True, None, t0))
    assert got == [(1, 1.5, "x", True, None, t0)], got
    got = rows("select %b, %b, %b", (7, 2.5, t0 + datetime.timedelta(microseconds=1500)))
    assert got == [(7, 2.5, t0 + datetime.timedelta(microseconds=1500))], got
    got = rows(
        "select time, value, pod, labels from samples where name = %s and time >= %s and value > %s order by time limit %s",
        ("cpu_usage", t0 + datetime.timedelta(minutes=10), 50, 1),
    )
    assert got == [(t0 + datetime.timedelta(minutes=10), 80.0, "b", {"job": "shop", "pod": "b"})], got
    assert rows("select count(*) from samples where pod = any(%s)", (["a", "c"],)) == [(120,)]
    nan, inf, minus = rows("select 'NaN'::float8, 'Infinity'::float8, '-Infinity'::float8")[0]
    assert math.isnan(nan) and inf == math.inf and minus == -math.inf
    got = rows(
        "select 12.50::numeric(10,2), '2026-01-02'::date, interval '1 day 2 hours', array[1,2], array['a',null,'b c'], false"
    )
    expected = (decimal.Decimal("12.50"), datetime.date(2026, 1, 2), datetime.timedelta(days=1, hours=2), [1, 2], ["a", None, "b c"], False)
    assert got == [expected], got
    got = rows(
        "select time, value from promql(%s, %s, %s, %s) order by time",
        ("sum(cpu_usage)", "2026-01-01T00:00:00Z", "2026-01-01T00:02:00Z", "1m"),
    )
    assert [v for _, v in got] == [0.0, 12.0, 24.0], got
    assert rows("select value from promql('cpu_usage{pod=\"a\"}', %s)", (t0 + datetime.timedelta(minutes=5),)) == [(20.0,)]
try:
    connection.execute("insert into samples values (1)")
except psycopg.errors.ReadOnlySqlTransaction:
    pass
else:
    raise SystemExit("a write was not refused")
connection.autocommit = False
with connection.transaction():
    with connection.cursor(name="all") as cursor:
        cursor.itersize = 50
        cursor.execute("select time, value from samples")
        assert len(cursor.fetchmany(10)) == 10 and len(cursor.fetchall()) == 230
try:
    connection.execute("select * from nothing")
except psycopg.errors.UndefinedTable:
    pass
try:
    connection.execute("select 1")
except psycopg.errors.InFailedSqlTransaction:
    connection.rollback()
else:
    raise SystemExit("the transaction had not failed")
assert connection.execute("select 1").fetchone() == (1,)
"#;
    if let Some(out) = crate::clients::python("psycopg", program, &[host, port]) {
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// What Grafana's data source for PostgreSQL asks: its checks, its query builder and its macros.
#[test]
fn grafanas_questions_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    runtime().block_on(async {
        let client = connect(&sextant, "dbname=anonymous").await.unwrap();
        assert_eq!(rows(&client, "SELECT current_setting('server_version_num')::int/100 as version").await, ["1600"]);
        assert_eq!(rows(&client, "SHOW server_version_num").await, ["160000"]);
        let none = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'";
        assert!(rows(&client, none).await.is_empty());
        let tables = r#"SELECT quote_ident(table_name) AS "table" FROM information_schema.tables
            WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog')
            AND quote_ident(table_schema) IN (
                SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
                FROM generate_series(
                    array_lower(string_to_array(current_setting('search_path'), ','), 1),
                    array_upper(string_to_array(current_setting('search_path'), ','), 1)) AS i,
                    string_to_array(current_setting('search_path'), ',') s)
            ORDER BY 1"#;
        assert_eq!(rows(&client, tables).await, ["metrics", "samples"]);
        let columns = "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns
            WHERE quote_ident(table_name) = 'samples' ORDER BY ordinal_position";
        let columns = rows(&client, columns).await;
        assert!(columns.contains(&"\"time\"|timestamp with time zone".replace('"', "")), "{columns:?}");
        assert!(columns.contains(&"value|double precision".to_owned()) && columns.contains(&"pod|text".to_owned()));
        let series = r#"SELECT floor(extract(epoch from "time")/60)*60 AS "time", pod AS metric, avg(value) AS value
            FROM samples WHERE name = 'cpu_usage' AND "time" BETWEEN '2026-01-01T00:00:00Z' AND '2026-01-01T00:01:45Z'
            GROUP BY 1, 2 ORDER BY 1, 2"#;
        assert_eq!(rows(&client, series).await, [
            "1767225600|a|1.5",
            "1767225600|b|3",
            "1767225660|a|5.5",
            "1767225660|b|11"
        ]);
        let epoch = "SELECT count(*) FROM samples WHERE extract(epoch from time) >= 1767225600 AND extract(epoch from time) <= 1767225615";
        assert_eq!(rows(&client, epoch).await, ["8"]);
        let types = "SELECT t.typname, t.oid FROM pg_catalog.pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
            WHERE t.typname IN ('int8', 'timestamptz', '_text') ORDER BY t.oid";
        assert_eq!(rows(&client, types).await, ["int8|20", "_text|1009", "timestamptz|1184"]);
    });
}

#[test]
fn promql_joins_and_windows_in_sql() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    runtime().block_on(async {
        let client = connect(&sextant, "").await.unwrap();
        let span = "'2026-01-01T00:00:00Z', '2026-01-01T00:10:00Z', '5m'";
        let join = format!(
            "select c.time, c.pod, c.value, m.value from promql('cpu_usage', {span}) c join promql('mem_usage', {span}) m
             on c.time = m.time and c.pod = m.pod order by c.time, c.pod"
        );
        assert_eq!(rows(&client, &join).await, [
            "2026-01-01 00:00:00+00|a|0|0.5",
            "2026-01-01 00:00:00+00|b|0|0.5",
            "2026-01-01 00:05:00+00|a|20|20.5",
            "2026-01-01 00:05:00+00|b|40|40.5",
            "2026-01-01 00:10:00+00|a|40|40.5",
            "2026-01-01 00:10:00+00|b|80|80.5",
        ]);
        let window = format!(
            "select pod, value - lag(value) over (partition by pod order by time) from promql('cpu_usage', {span}) order by pod, time"
        );
        assert_eq!(rows(&client, &window).await, ["a|", "a|20", "a|20", "b|", "b|40", "b|40"]);
        let metadata = "select p.pod, p.value, m.sample_count, m.labels->>'job' from promql('cpu_usage', '2026-01-01T00:10:00Z') p
            join metrics m on m.name = p.name and m.pod = p.pod order by 1";
        assert_eq!(rows(&client, metadata).await, ["a|40|60|shop", "b|80|60|shop"]);
    });
}

#[test]
fn the_extended_protocol_describes_and_suspends() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    runtime().block_on(async {
        let mut client = connect(&sextant, "").await.unwrap();
        let statement = client
            .prepare("select time, value, pod, labels from samples where name = $1 and value >= $2 order by time, pod limit $3")
            .await
            .unwrap();
        let parameters: Vec<&str> = statement.params().iter().map(|t| t.name()).collect();
        assert_eq!(parameters, ["text", "float8", "int8"]);
        let columns: Vec<(&str, &str)> = statement.columns().iter().map(|c| (c.name(), c.type_().name())).collect();
        assert_eq!(columns, [("time", "timestamptz"), ("value", "float8"), ("pod", "text"), ("labels", "jsonb")]);
        let found = client.query(&statement, &[&"cpu_usage", &57.5f64, &2i64]).await.unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].get::<_, f64>(1), found[0].get::<_, &str>(2)), (58.0, "b"));
        let since = std::time::UNIX_EPOCH + Duration::from_millis(T0 as u64);
        let at = found[0].get::<_, std::time::SystemTime>(0);
        assert_eq!(at, since + Duration::from_secs(29 * 15));
        let counted = client.query_one("select count(*) from samples where time >= $1", &[&at]).await.unwrap();
        assert_eq!(counted.get::<_, i64>(0), 4 * 31);
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind("select value from samples where name = 'mem_usage'", &[]).await.unwrap();
        let mut sizes = Vec::new();
        loop {
            let part = transaction.query_portal(&portal, 50).await.unwrap();
            sizes.push(part.len());
            if part.len() < 50 {
                break;
            }
        }
        assert_eq!(sizes, [50, 50, 20]);
        transaction.commit().await.unwrap();
        assert!(client.simple_query("").await.unwrap().len() <= 1);
        assert!(client.query("", &[]).await.unwrap().is_empty());
        assert_eq!(rows(&client, "select 1; set extra_float_digits = 3; show extra_float_digits; select 'b'").await, ["1", "3", "b"]);
        for sql in ["discard all", "deallocate all", "reset all", "unlisten *", "close all", "set client_encoding to 'UTF8'", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"] {
            client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        client.simple_query("prepare p as select $1::int8 + 1").await.unwrap();
        assert_eq!(rows(&client, "execute p(41)").await, ["42"]);
    });
}

#[test]
fn errors_have_their_codes() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    runtime().block_on(async {
        let client = connect(&sextant, "").await.unwrap();
        for (sql, expected) in [
            ("select * from nothing", "42P01"),
            ("select nothing from samples", "42703"),
            ("select foo(1)", "42883"),
            ("selec 1", "42601"),
            ("select 1 from", "42601"),
            ("insert into samples values (1)", "25006"),
            ("create table t (a int)", "25006"),
            ("drop table samples", "25006"),
            ("select sum(value), pod from samples", "42803"),
            ("select 1/0", "22012"),
            ("select 'x'::int", "22P02"),
            ("show nothing", "42704"),
            ("execute nothing", "26000"),
            ("fetch 1 from nothing", "34000"),
            ("copy samples to stdout", "0A000"),
        ] {
            assert_eq!(fails(&client, sql).await, expected, "{sql}");
        }
        let error = client.simple_query("select 1,\n  nothing from samples").await.unwrap_err();
        let position = error.as_db_error().and_then(|e| e.position()).map(|p| format!("{p:?}"));
        assert_eq!(position, Some("Original(13)".to_owned()));
        // A nest of parentheses and a statement of a megabyte cost an error.
        let nested = format!("select {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(["54001", "42601"].contains(&fails(&client, &nested).await.as_str()));
        let chain = format!("select {}1", "1+".repeat(50_000));
        assert_eq!(fails(&client, &chain).await, "54001");
        let chain = format!("select {}1 as sum", "1+".repeat(900));
        assert_eq!(rows(&client, &chain).await, ["901"]);
        let long = format!("select '{}' as t", "x".repeat(1 << 20));
        assert_eq!(rows(&client, &long).await[0].len(), 1 << 20);
        client.simple_query("begin").await.unwrap();
        assert_eq!(fails(&client, "select * from nothing").await, "42P01");
        assert_eq!(fails(&client, "select 1").await, "25P02");
        client.simple_query("rollback").await.unwrap();
        assert_eq!(rows(&client, "select 1").await, ["1"]);
    });
}

/// A join that would run for minutes, in little memory.
const ENDLESS: &str = "with g as (select a.value as v from samples a cross join samples b)
    select count(*) from g x cross join g y where x.v * y.v > 1e300";
/// A join that wants more memory than one statement may have.
const GREEDY: &str = "select count(*) from samples a, samples b, samples c, samples d, samples e
    where a.value + b.value + c.value + d.value = e.value + 0.25";

/// How many queries run, as the process counts them.
fn running(sextant: &Sextant) -> u64 {
    let metrics = sextant.get("/metrics").1;
    let line = metrics.lines().find(|l| l.starts_with("sextant_querier_queries_running ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn wait_until_running(sextant: &Sextant, n: u64) {
    let until = Instant::now() + Duration::from_secs(60);
    while running(sextant) != n {
        assert!(Instant::now() < until, "{} queries run, not {n}", running(sextant));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_statement_ends_when_asked_timed_out_or_left() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = std::sync::Arc::new(connect(&sextant, "").await.unwrap());
        let cancel = client.cancel_token();
        let asking = {
            let client = client.clone();
            tokio::spawn(async move { client.simple_query(ENDLESS).await })
        };
        tokio::task::block_in_place(|| wait_until_running(&sextant, 1));
        cancel.cancel_query(NoTls).await.unwrap();
        assert_eq!(code(&asking.await.unwrap().unwrap_err()), "57014");
        assert_eq!(rows(&client, "select 1").await, ["1"]);
        client.simple_query("set statement_timeout = '200ms'").await.unwrap();
        assert_eq!(fails(&client, ENDLESS).await, "57014");
        client.simple_query("reset statement_timeout").await.unwrap();
        assert_eq!(fails(&client, GREEDY).await, "53200");
    });
    wait_until_running(&sextant, 0);
    let mut socket = TcpStream::connect(&sextant.postgres).unwrap();
    startup(&mut socket, &[("user", "raw")]);
    let mut query = vec![b'Q'];
    query.extend((ENDLESS.len() as u32 + 5).to_be_bytes());
    query.extend(ENDLESS.as_bytes());
    query.push(0);
    socket.write_all(&query).unwrap();
    wait_until_running(&sextant, 1);
    drop(socket);
    wait_until_running(&sextant, 0);
}

fn startup(socket: &mut TcpStream, parameters: &[(&str, &str)]) {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    socket.write_all(&(body.len() as u32 + 4).to_be_bytes()).unwrap();
    socket.write_all(&body).unwrap();
}

#[test]
fn bytes_that_are_no_messages_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    let answer = |bytes: &[u8], started: bool| {
        let mut socket = TcpStream::connect(&sextant.postgres).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        if started {
            startup(&mut socket, &[("user", "raw")]);
        }
        socket.write_all(bytes).unwrap();
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(answer(b"GET / HTTP/1.1\r\n\r\n", false).contains("08P01"));
    assert_eq!(answer(b"\0\0\0\x08\x04\xd2\x16\x2f", false), "N");
    assert!(answer(b"\0\0\0\x08\0\x02\0\0", false).contains("unsupported frontend protocol"));
    for bytes in [
        &b"P\0\0\0\x05s"[..],
        b"B\0\0\0\x09\0s\0\0\x01",
        b"Q\x7f\xff\xff\xff",
        b"Q\0\0\0\x06\xff\0",
        b"z\0\0\0\x04",
        b"E\0\0\0\x05\0",
    ] {
        assert!(answer(bytes, true).contains("08P01"), "{bytes:?}");
    }
    let (status, _) = sextant.get("/ready");
    assert_eq!(status, 200);
}

#[test]
fn the_database_is_the_tenant() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--agent.host-metrics=false", "--multi-tenancy=true", "--querier.timeout=30s"];
    let sextant = Sextant::start(folder.path(), &args, None);
    let written = sextant
        .client
        .post(format!("{}/api/v1/push", sextant.url))
        .header("Content-Type", "application/x-protobuf")
        .header("X-Scope-OrgID", "team-a")
        .body(body())
        .send()
        .unwrap();
    assert_eq!(written.status().as_u16(), 204);
    runtime().block_on(async {
        let count = "select count(*) from samples";
        let client = connect(&sextant, "dbname=team-a").await.unwrap();
        assert_eq!(rows(&client, count).await, ["240"]);
        assert_eq!(rows(&client, "select current_database(), current_user").await, ["team-a|tester"]);
        let client = connect(&sextant, "dbname=team-b").await.unwrap();
        assert_eq!(rows(&client, count).await, ["0"]);
        let client = connect(&sextant, "dbname=postgres options='-c tenant=team-a|team-b'").await.unwrap();
        assert_eq!(rows(&client, count).await, ["240"]);
        let error = connect(&sextant, "dbname='not/a tenant'").await.err().unwrap();
        assert_eq!(code(&error), "3D000");
    });
}
