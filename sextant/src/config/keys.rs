//! Every configuration key, once: its YAML path, flag, environment variable, kind, default and meaning come from here.

/// What values a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A text that never appears in logs, pages or `--print-config`.
    Secret,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A span of time: `15s`, `2h`, `500ms`.
    Duration,
    /// A number of bytes: `64MiB`, `1GiB`, `1000000`.
    Bytes,
    /// `host:port` or `off`.
    Listen,
}

impl Kind {
    /// The name that the reference prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Secret => "secret text",
            Self::Bool => "true or false",
            Self::Integer => "whole number",
            Self::Duration => "duration",
            Self::Bytes => "bytes",
            Self::Listen => "host:port or off",
        }
    }
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Path in the YAML file, with dots: `ingester.flush_age`.
    pub path: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The default, as it would be written.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

impl Key {
    /// The command-line flag without its dashes: `ingester.flush-age`.
    pub fn flag(&self) -> String {
        self.path.replace('_', "-")
    }

    /// The environment variable: `SEXTANT_INGESTER_FLUSH_AGE`.
    pub fn env(&self) -> String {
        format!("SEXTANT_{}", self.path.replace('.', "_").to_uppercase())
    }
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

/// The keys in the order of the reference.
pub const KEYS: &[Key] = &[
    key(
        "data_dir",
        Kind::Text,
        "./sextant-data",
        "Folder for the replicated log, checkpoints and, by default, the object store. One process at a time.",
    ),
    key(
        "object_store",
        Kind::Text,
        "",
        "URL of the object store: `file:///dir`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`. Empty: the folder `objects` in the data folder.",
    ),
    key(
        "multi_tenancy",
        Kind::Bool,
        "false",
        "Off: all data is of the tenant `anonymous`. On: every request needs `X-Scope-OrgID`; reads may name several tenants, `a|b`.",
    ),
    key(
        "limits_file",
        Kind::Text,
        "",
        "YAML file with limits: `defaults` and, by tenant, `overrides`. Read again while running when it changes.",
    ),
    key(
        "log.level",
        Kind::Text,
        "info",
        "Log filter: `error`, `warn`, `info`, `debug`, `trace`, or by module as in `sextant_ingester=debug,info`.",
    ),
    key("log.format", Kind::Text, "text", "`text` or `json`."),
    key(
        "shutdown_timeout",
        Kind::Duration,
        "30s",
        "How long a stop may take: requests in flight are answered first; what is acknowledged is on disk either way.",
    ),
    key(
        "http.listen",
        Kind::Listen,
        "127.0.0.1:9009",
        "All HTTP: Prometheus API, remote write, OTLP, SQL, the page, /metrics, /ready, /healthz.",
    ),
    key(
        "http.cors_origin",
        Kind::Text,
        ".*",
        "Regular expression of the origins whose pages may read answers of the Prometheus API in a browser.",
    ),
    key(
        "http.admin_api",
        Kind::Bool,
        "false",
        "Prometheus' administration of stored data: deleting series (`/api/v1/admin/tsdb/delete_series`) and compacting deletions away (`…/clean_tombstones`).",
    ),
    key(
        "grpc.listen",
        Kind::Listen,
        "127.0.0.1:9010",
        "gRPC: Flight SQL and, in a cluster, calls between roles.",
    ),
    key("otlp.grpc.listen", Kind::Listen, "127.0.0.1:4317", "OTLP over gRPC."),
    key("otlp.http.listen", Kind::Listen, "127.0.0.1:4318", "OTLP over HTTP."),
    key(
        "postgres.listen",
        Kind::Listen,
        "127.0.0.1:9432",
        "PostgreSQL wire protocol: read-only SQL for psql, drivers and Grafana. The database names the tenant. With `tls.cert_file` only over TLS (cancel requests excepted); with `auth.file` it asks for a password.",
    ),
    key(
        "cluster.listen",
        Kind::Listen,
        "127.0.0.1:9011",
        "gRPC between the roles of a cluster. Opened by the role `ingester` only; without effect while all roles run in one process.",
    ),
    key(
        "cluster.advertise",
        Kind::Text,
        "",
        "`host:port` at which other processes reach `cluster.listen`. Empty: that address itself.",
    ),
    key(
        "cluster.name",
        Kind::Text,
        "sextant",
        "The deployment. Processes of another name are refused; a data folder is of one name for ever.",
    ),
    key(
        "cluster.peers",
        Kind::Text,
        "",
        "Comma-separated `host:port` of the first ingesters (their `cluster.advertise`), the same list in every process. The first of them makes the cluster when all say that there is none; afterwards any that answers will do.",
    ),
    key(
        "cluster.node_name",
        Kind::Text,
        "",
        "Name of this process for people, unique in the cluster. Empty: the host's name, and the port where it is on loopback.",
    ),
    key(
        "cluster.zone",
        Kind::Text,
        "",
        "Failure domain of this process. Replicas of a shard lie in different zones where there are enough.",
    ),
    key(
        "cluster.replication",
        Kind::Integer,
        "3",
        "Replicas of each shard, taken when the cluster is made. With fewer ingesters the shards wait for more.",
    ),
    key(
        "tls.cert_file",
        Kind::Text,
        "",
        "Certificate of every listener above and those that lead to its authority (PEM). Set: they speak TLS only. With `tls.key_file`.",
    ),
    key("tls.key_file", Kind::Text, "", "Private key of `tls.cert_file` (PEM)."),
    key(
        "tls.client_ca_file",
        Kind::Text,
        "",
        "Authorities of clients' certificates (PEM). Empty: clients are not asked for one.",
    ),
    key(
        "tls.require_client_cert",
        Kind::Bool,
        "false",
        "Refuse clients without a certificate of `tls.client_ca_file`, whatever credentials they have. Also probes of /ready.",
    ),
    key(
        "cluster_tls.cert_file",
        Kind::Text,
        "",
        "Certificate of this process towards other roles (PEM), with `cluster_tls.key_file` and `cluster_tls.ca_file`. Set: connections between roles are mutual TLS, and certificates must name the caller's role. Without effect while all roles run in one process.",
    ),
    key("cluster_tls.key_file", Kind::Text, "", "Private key of `cluster_tls.cert_file` (PEM)."),
    key("cluster_tls.ca_file", Kind::Text, "", "Authority of the cluster's certificates (PEM)."),
    key(
        "auth.file",
        Kind::Text,
        "",
        "YAML file of credentials: tokens and passwords with their tenants and rights. Set: every listener asks for them. Empty: everything is allowed.",
    ),
    key(
        "security.reload_interval",
        Kind::Duration,
        "10s",
        "How often certificates, keys and `auth.file` are looked at; what changed is in force without a restart.",
    ),
    key("s3.endpoint", Kind::Text, "", "Endpoint of an S3-compatible service; empty is AWS."),
    key("s3.region", Kind::Text, "", "S3 region."),
    key(
        "s3.access_key_id",
        Kind::Text,
        "",
        "S3 access key; empty takes it from the environment or the instance.",
    ),
    key("s3.secret_access_key", Kind::Secret, "", "S3 secret key."),
    key("s3.allow_http", Kind::Bool, "false", "Allow an S3 endpoint without TLS."),
    key(
        "distributor.max_request_bytes",
        Kind::Bytes,
        "64MiB",
        "Largest write request after decompression; a larger one is refused with 413.",
    ),
    key(
        "distributor.otlp_promote_resource_attributes",
        Kind::Text,
        "",
        "Comma-separated resource attributes that become labels of every OTLP metric, besides job and instance.",
    ),
    key(
        "ingester.shards",
        Kind::Integer,
        "1",
        "How many shards (Raft groups) series are spread over. Fixed when a data folder is first used or a cluster is made.",
    ),
    key(
        "ingester.log_sync",
        Kind::Text,
        "always",
        "`always`: a write is acknowledged when it is on disk. `relaxed`: when it is written; the last `ingester.log_sync_interval` may be lost with the machine.",
    ),
    key("ingester.log_sync_interval", Kind::Duration, "100ms", "How often a relaxed log is synced."),
    key("ingester.log_segment_size", Kind::Bytes, "64MiB", "Size of a segment file of the log."),
    key(
        "ingester.head_memory_max",
        Kind::Bytes,
        "4GiB",
        "Memory of recent data; beyond it writers get 429 until a flush has made room.",
    ),
    key("ingester.flush_age", Kind::Duration, "2h", "Recent data older than this is flushed into a block."),
    key(
        "ingester.flush_samples",
        Kind::Integer,
        "100000000",
        "Recent samples beyond this number in a shard are flushed into a block.",
    ),
    key(
        "ingester.drop_grace",
        Kind::Duration,
        "5m",
        "How long flushed data stays readable from memory for queries that began before.",
    ),
    key("compactor.interval", Kind::Duration, "1m", "How often the compactor looks for work."),
    key(
        "compactor.delete_delay",
        Kind::Duration,
        "15m",
        "How long a replaced block stays in the object store for queries that began before, and how old an orphan must be to be removed.",
    ),
    key(
        "querier.cache_bytes",
        Kind::Bytes,
        "256MiB",
        "Memory for verified pieces of blocks, footers and indexes.",
    ),
    key("querier.timeout", Kind::Duration, "2m", "Longest time for one query."),
    key(
        "querier.slow_query",
        Kind::Duration,
        "10s",
        "PromQL questions that take longer are logged with their tenants, text, what they read, and their plan. 0s: none.",
    ),
    key("querier.max_concurrent", Kind::Integer, "20", "Queries that run at once; others wait."),
    key(
        "querier.lookback_delta",
        Kind::Duration,
        "5m",
        "PromQL: how old the newest sample of a series may be.",
    ),
    key(
        "querier.max_samples",
        Kind::Integer,
        "50000000",
        "PromQL: samples that one query may hold in memory.",
    ),
    key(
        "agent.host_metrics",
        Kind::Bool,
        "true",
        "Collect this host's metrics under node_exporter's names (role `agent` and the all-in-one process).",
    ),
    key("agent.host_interval", Kind::Duration, "15s", "How often this host's metrics are collected."),
    key(
        "agent.scrape_config",
        Kind::Text,
        "",
        "File with `global` and `scrape_configs` in Prometheus' own YAML; taken anew when it changes.",
    ),
    key("agent.tenant", Kind::Text, "anonymous", "Tenant that the agent writes to."),
];
