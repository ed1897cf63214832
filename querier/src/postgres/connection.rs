//! One client's connection: its start, its messages, and what it has prepared.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow_array::{RecordBatch, StringArray};
use bytes::BytesMut;
use datafusion::logical_expr::sqlparser::ast::{Expr, Statement};
use sextant_security::{Connection as Socket, TlsError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::{
    STARTUP_TIMEOUT, Shared, encode,
    error::PgError,
    gate::{refuse, turn_away},
    params, rewrite,
    run::{Piece, ResultColumn, Running, Scope},
    session::{Kind, REPORTED, Settings},
    types::{self, ColumnType},
    wire::{self, Answers, Bind, ColumnDescription, Formats, Frontend, Opening, Target},
};

/// Answers are sent when this many bytes are waiting.
const SEND_AT: usize = 64 << 10;
/// While a statement runs, a client's next messages are read up to this many bytes.
const READ_AHEAD_MAX: usize = 1 << 20;
/// Statements and portals that a connection may hold.
const PREPARED_MAX: usize = 10_000;

/// Told when a client asks for its statement to be stopped.
#[derive(Default)]
pub struct Stop {
    asked: AtomicBool,
    notify: Notify,
}

impl Stop {
    /// Stops the statement that runs.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }
}

/// Why a connection ends.
#[derive(Debug)]
pub enum Ended {
    /// The client left, or said that it would.
    Left,
    /// The socket failed.
    Io(std::io::Error),
    /// There was no handshake.
    Tls(TlsError),
}

impl From<std::io::Error> for Ended {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

/// Why a message has no answer: an error to report, or the end.
pub enum Failure {
    /// To be reported.
    Error(Box<PgError>),
    /// The end.
    Ended(Ended),
}

impl From<PgError> for Failure {
    fn from(e: PgError) -> Self {
        Self::Error(Box::new(e))
    }
}

impl From<Ended> for Failure {
    fn from(e: Ended) -> Self {
        Self::Ended(e)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::Ended(Ended::Io(e))
    }
}

/// A prepared statement.
struct Prepared {
    sql: Arc<str>,
    /// What it is; `None` where there is nothing in it.
    statement: Option<(Statement, Kind)>,
    parameters: Vec<ColumnType>,
    /// Its columns, where it has any that are known.
    columns: Option<Arc<Vec<ResultColumn>>>,
}

/// A statement with its values, perhaps half-way through its rows.
struct Portal {
    statement: Arc<Prepared>,
    values: Vec<Expr>,
    formats: Formats,
    columns: Option<Arc<Vec<ResultColumn>>>,
    rows: Rows,
    /// Whether it outlives its transaction.
    hold: bool,
}

enum Rows {
    /// Not begun.
    Waiting,
    /// Running; the batch at hand and how far it is sent.
    Running { running: Box<Running>, batch: Option<(RecordBatch, usize)> },
    /// At its end.
    Done,
}

/// A connection after its start.
pub struct Connection {
    shared: Arc<Shared>,
    stream: Socket,
    inbox: BytesMut,
    out: Answers,
    scope: Scope,
    settings: Settings,
    initial: Settings,
    /// `I`, `T` or `E`.
    status: u8,
    stop: Arc<Stop>,
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
}

/// Speaks with a client until it leaves.
pub async fn serve(shared: Arc<Shared>, stream: TcpStream) -> Result<(), Ended> {
    stream.set_nodelay(true)?;
    let Ok(opened) = tokio::time::timeout(STARTUP_TIMEOUT, shared.gate.open(stream)).await else {
        return Err(Ended::Left);
    };
    let (mut stream, mut inbox, opening) = opened?;
    let (minor, parameters) = match opening {
        Opening::Startup { minor, parameters } => (minor, parameters),
        Opening::Cancel { pid, secret } => {
            shared.cancel(pid, secret);
            return Ok(());
        }
        Opening::Tls | Opening::Gssapi => return Err(Ended::Left),
    };
    let user = parameters.get("user").map_or("", String::as_str);
    let authenticating = shared.gate.authenticate(&mut stream, &mut inbox, user);
    let identity = match tokio::time::timeout(STARTUP_TIMEOUT, authenticating).await {
        Ok(Ok(identity)) => identity,
        Ok(Err(failure)) => return Err(turn_away(stream, failure).await),
        Err(_) => return Err(Ended::Left),
    };
    let authorized = shared.scope(&parameters).and_then(|scope| {
        shared.gate.authorize(&identity, &scope.tenants)?;
        Ok(scope)
    });
    let scope = match authorized {
        Ok(scope) => scope,
        Err(e) => return refuse(stream, &e).await,
    };
    let Some(place) = shared.register(scope.pid) else {
        return refuse(stream, &PgError::fatal("53300", "sorry, too many clients already")).await;
    };
    let mut settings = Settings::new(&scope.user);
    let unlike = |name: &str| !["user", "database", "options", "replication"].contains(&name);
    let options = super::options(parameters.get("options").map_or("", String::as_str));
    for (name, value) in parameters.iter().filter(|(n, _)| unlike(n) && !n.starts_with("_pq_.")) {
        if let Err(e) = settings.set(name, value) {
            return refuse(stream, &PgError { fatal: true, ..e }).await;
        }
    }
    for (name, value) in options.iter().filter(|(n, _)| n != "tenant") {
        if let Err(e) = settings.set(name, value) {
            return refuse(stream, &PgError { fatal: true, ..e }).await;
        }
    }
    let mut out = Answers::default();
    let unknown: Vec<&str> =
        parameters.keys().filter(|n| n.starts_with("_pq_.")).map(String::as_str).collect();
    if minor > 0 || !unknown.is_empty() {
        out.negotiate(&unknown);
    }
    out.authentication_ok();
    for name in REPORTED {
        out.parameter_status(name, settings.get(name).unwrap_or(""));
    }
    out.backend_key(scope.pid, place.secret);
    out.ready(b'I');
    let mut connection = Connection {
        stop: place.stop.clone(),
        shared,
        stream,
        inbox,
        out,
        scope,
        initial: settings.clone(),
        settings,
        status: b'I',
        statements: HashMap::new(),
        portals: HashMap::new(),
    };
    connection.flush().await?;
    connection.converse().await
}

impl Connection {
    async fn flush(&mut self) -> std::io::Result<()> {
        if !self.out.bytes.is_empty() {
            self.stream.write_all(&self.out.bytes).await?;
            // TLS may hold back what the socket did not take at once.
            self.stream.flush().await?;
            self.out.bytes.clear();
        }
        Ok(())
    }

    async fn converse(&mut self) -> Result<(), Ended> {
        let mut skipping = false;
        let mut stopping = self.shared.stopping.clone();
        loop {
            let message = match wire::message(&mut self.inbox) {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.flush().await?;
                    tokio::select! {
                        read = self.stream.read_buf(&mut self.inbox) => {
                            if read? == 0 {
                                return Err(Ended::Left);
                            }
                        }
                        () = async { let _ = stopping.wait_for(|s| *s).await; } => {
                            let e = PgError::fatal("57P01", "terminating connection due to administrator command");
                            self.out.report(b'E', &e.fields());
                            self.flush().await?;
                            return Ok(());
                        }
                    }
                    continue;
                }
                Err(e) => {
                    self.out.report(b'E', &PgError::from(e).fields());
                    self.flush().await?;
                    return Ok(());
                }
            };
            if skipping && !matches!(message, Frontend::Sync | Frontend::Terminate) {
                continue;
            }
            let simple = matches!(message, Frontend::Query(_));
            let outcome = match message {
                Frontend::Terminate => return Ok(()),
                Frontend::Sync => {
                    skipping = false;
                    self.end_round();
                    self.out.ready(self.status);
                    self.flush().await.map_err(Failure::from)
                }
                message => Box::pin(self.answer(message)).await,
            };
            match outcome {
                Ok(()) => {}
                Err(Failure::Ended(e)) => return Err(e),
                Err(Failure::Error(e)) => {
                    self.out.report(b'E', &e.fields());
                    if e.fatal {
                        self.flush().await?;
                        return Ok(());
                    }
                    if self.status == b'T' {
                        self.status = b'E';
                    }
                    skipping = !simple;
                }
            }
            if simple {
                self.end_round();
                self.out.ready(self.status);
            }
            if self.out.bytes.len() >= SEND_AT {
                self.flush().await?;
            }
        }
    }

    /// Outside a transaction, portals end with the round that made them.
    fn end_round(&mut self) {
        if self.status == b'I' {
            self.portals.retain(|_, p| p.hold);
        }
    }

    async fn answer(&mut self, message: Frontend) -> Result<(), Failure> {
        match message {
            Frontend::Query(sql) => Box::pin(self.query(&sql)).await,
            Frontend::Parse { name, query, types } => Box::pin(self.parse(name, &query, types)).await,
            Frontend::Bind(bind) => self.bind(bind),
            Frontend::Describe(target) => self.describe(target),
            Frontend::Execute { portal, max_rows } => {
                self.stop.asked.store(false, Ordering::Release);
                Box::pin(self.execute(&portal, max_rows)).await
            }
            Frontend::Close(target) => {
                match target {
                    Target::Statement(name) => drop(self.statements.remove(&name)),
                    Target::Portal(name) => drop(self.portals.remove(&name)),
                }
                self.out.close_complete();
                Ok(())
            }
            Frontend::Flush => Ok(self.flush().await?),
            Frontend::Other(kind) => {
                Err(PgError::fatal("08P01", format!("invalid frontend message type {kind}")).into())
            }
            Frontend::Sync | Frontend::Terminate => Ok(()),
        }
    }

    /// Waits for some work, while the client may ask for its end or go away.
    async fn wait<T>(&mut self, work: impl Future<Output = Result<T, PgError>>) -> Result<T, Failure> {
        let stop = self.stop.clone();
        let notified = stop.notify.notified();
        tokio::pin!(notified, work);
        notified.as_mut().enable();
        loop {
            if stop.asked.swap(false, Ordering::AcqRel) {
                return Err(PgError::new("57014", "canceling statement due to user request").into());
            }
            let read_ahead = self.inbox.len() < READ_AHEAD_MAX;
            tokio::select! {
                biased;
                done = &mut work => return Ok(done?),
                () = &mut notified => {}
                read = self.stream.read_buf(&mut self.inbox), if read_ahead => {
                    if read? == 0 {
                        return Err(Ended::Left.into());
                    }
                }
            }
        }
    }

    fn scope(&self) -> Scope {
        let mut scope = self.scope.clone();
        scope.settings = self.settings.all();
        if let Some(timeout) = self.settings.statement_timeout() {
            scope.timeout = scope.timeout.min(timeout);
        }
        scope
    }

    async fn query(&mut self, sql: &str) -> Result<(), Failure> {
        self.stop.asked.store(false, Ordering::Release);
        let statements = rewrite::parse(sql)?;
        if statements.is_empty() {
            self.out.empty_query();
            return Ok(());
        }
        for statement in statements {
            let kind = Kind::of(&statement)?;
            let prepared = Prepared {
                sql: sql.into(),
                statement: Some((statement, kind)),
                parameters: Vec::new(),
                columns: None,
            };
            let portal = Portal {
                statement: Arc::new(prepared),
                values: Vec::new(),
                formats: Formats::default(),
                columns: None,
                rows: Rows::Waiting,
                hold: false,
            };
            Box::pin(self.run(portal, 0, true)).await?;
        }
        Ok(())
    }

    async fn parse(&mut self, name: String, sql: &str, types: Vec<u32>) -> Result<(), Failure> {
        let mut statements = rewrite::parse(sql)?;
        if statements.len() > 1 {
            return Err(
                PgError::new("42601", "cannot insert multiple commands into a prepared statement").into()
            );
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(PgError::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        let prepared = match statements.pop() {
            None => Prepared { sql: sql.into(), statement: None, parameters: Vec::new(), columns: None },
            Some(statement) => {
                let kind = Kind::of(&statement)?;
                self.refuse_in_failed(&kind)?;
                Box::pin(self.prepare(sql, statement, kind, types)).await?
            }
        };
        self.keep(name, prepared)?;
        self.out.parse_complete();
        Ok(())
    }

    fn keep(&mut self, name: String, prepared: Prepared) -> Result<(), PgError> {
        if self.statements.len() >= PREPARED_MAX {
            return Err(PgError::new(
                "53400",
                format!("the limit of {PREPARED_MAX} prepared statements is reached"),
            ));
        }
        self.statements.insert(name, Arc::new(prepared));
        Ok(())
    }

    async fn prepare(
        &mut self,
        sql: &str,
        statement: Statement,
        kind: Kind,
        types: Vec<u32>,
    ) -> Result<Prepared, Failure> {
        let (parameters, columns) = match &kind {
            Kind::Rows(_) => {
                let scope = self.scope();
                let described = self.wait(Box::pin(scope.describe(sql, statement.clone(), types))).await?;
                (described.parameters, Some(described.columns))
            }
            Kind::Show(name) => (Vec::new(), Some(show_columns(name))),
            Kind::Fetch(name, _) => (Vec::new(), self.portals.get(name).and_then(|p| p.columns.clone())),
            Kind::Declare(_, query, _) => {
                let scope = self.scope();
                let described = self.wait(Box::pin(scope.describe(sql, (**query).clone(), types))).await?;
                (described.parameters, None)
            }
            Kind::Execute(name, _) => (Vec::new(), self.statement(name)?.columns.clone()),
            _ => (Vec::new(), None),
        };
        Ok(Prepared { sql: sql.into(), statement: Some((statement, kind)), parameters, columns })
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>, PgError> {
        let missing = || PgError::new("26000", format!("prepared statement \"{name}\" does not exist"));
        self.statements.get(name).cloned().ok_or_else(missing)
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let statement = self.statement(&bind.statement)?;
        if bind.values.len() != statement.parameters.len() {
            return Err(PgError::new(
                "08P01",
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                    bind.values.len(),
                    bind.statement,
                    statement.parameters.len()
                ),
            )
            .into());
        }
        let values = bind
            .values
            .iter()
            .zip(&statement.parameters)
            .enumerate()
            .map(|(i, (value, kind))| {
                params::literal(value.as_ref(), *kind, bind.parameter_formats.binary(i))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if self.portals.len() >= PREPARED_MAX {
            return Err(
                PgError::new("53400", format!("the limit of {PREPARED_MAX} portals is reached")).into()
            );
        }
        let columns = statement.columns.clone();
        let formats = bind.result_formats;
        let portal = Portal { statement, values, formats, columns, rows: Rows::Waiting, hold: false };
        self.portals.insert(bind.portal, portal);
        self.out.bind_complete();
        Ok(())
    }

    fn describe(&mut self, target: Target) -> Result<(), Failure> {
        let (columns, formats) = match target {
            Target::Statement(name) => {
                let statement = self.statement(&name)?;
                let types: Vec<u32> = statement.parameters.iter().map(ColumnType::oid).collect();
                self.out.parameter_description(&types);
                (statement.columns.clone(), Formats::default())
            }
            Target::Portal(name) => {
                let Some(portal) = self.portals.get(&name) else { return Err(no_portal(&name).into()) };
                (portal.columns.clone(), portal.formats.clone())
            }
        };
        match columns {
            Some(columns) => self.out.row_description(&described(&columns, &formats)),
            None => self.out.no_data(),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: usize) -> Result<(), Failure> {
        let Some(portal) = self.portals.remove(name) else { return Err(no_portal(name).into()) };
        if let Some(portal) = Box::pin(self.run(portal, max_rows, false)).await? {
            self.portals.insert(name.to_owned(), portal);
        }
        Ok(())
    }

    fn refuse_in_failed(&self, kind: &Kind) -> Result<(), PgError> {
        if self.status == b'E' && !kind.ends_transaction() {
            return Err(PgError::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// Runs a portal, or goes on with it, and gives it back. `describe`: its columns are told first.
    async fn run(
        &mut self,
        mut portal: Portal,
        max_rows: usize,
        describe: bool,
    ) -> Result<Option<Portal>, Failure> {
        let Some((statement, kind)) = portal.statement.statement.clone() else {
            self.out.empty_query();
            return Ok(Some(portal));
        };
        self.refuse_in_failed(&kind)?;
        match kind {
            Kind::Rows(tag) => {
                if matches!(portal.rows, Rows::Waiting) {
                    let statement = show_tables(statement)?;
                    let running =
                        self.scope().run(portal.statement.sql.clone(), statement, portal.values.clone());
                    portal.rows = Rows::Running { running: Box::new(running), batch: None };
                }
                let limit = if max_rows == 0 { usize::MAX } else { max_rows };
                let sent = self.send_rows(&mut portal, limit, describe).await?;
                self.rows_done(&portal, sent, limit, tag);
            }
            Kind::Execute(name, values) => {
                let target = self.statement(&name)?;
                if values.len() != target.parameters.len() {
                    let text = format!("wrong number of parameters for prepared statement \"{name}\"");
                    return Err(PgError::new("42601", text).into());
                }
                let columns = target.columns.clone();
                portal = Portal { statement: target, values, columns, ..portal };
                return Box::pin(self.run(portal, max_rows, describe)).await;
            }
            Kind::Show(name) => self.show(&name, &portal.formats, describe)?,
            Kind::Fetch(name, count) => self.fetch(&name, count, &portal.formats, describe).await?,
            Kind::Declare(name, query, hold) => {
                if self.portals.contains_key(&name) {
                    return Err(PgError::new("42P03", format!("cursor \"{name}\" already exists")).into());
                }
                if self.status == b'I' && !hold {
                    let text = "DECLARE CURSOR can only be used in transaction blocks";
                    return Err(PgError::new("25P01", text).into());
                }
                let sql: Arc<str> = portal.statement.sql.clone();
                let mut running = self.scope().run(sql.clone(), (*query).clone(), portal.values.clone());
                let columns = match self.wait(running.next()).await? {
                    Some(Piece::Columns(columns)) => Some(columns),
                    _ => None,
                };
                let statement = Prepared {
                    sql,
                    statement: Some((*query, Kind::Rows("SELECT"))),
                    parameters: Vec::new(),
                    columns: columns.clone(),
                };
                let cursor = Portal {
                    statement: Arc::new(statement),
                    values: Vec::new(),
                    formats: Formats::default(),
                    columns,
                    rows: Rows::Running { running: Box::new(running), batch: None },
                    hold,
                };
                self.portals.insert(name, cursor);
                self.out.command_complete("DECLARE CURSOR");
            }
            Kind::Prepare(name, inner) => {
                if self.statements.contains_key(&name) {
                    return Err(PgError::new(
                        "42P05",
                        format!("prepared statement \"{name}\" already exists"),
                    )
                    .into());
                }
                let sql = portal.statement.sql.clone();
                let kind = Kind::of(&inner)?;
                let prepared = Box::pin(self.prepare(&sql, *inner, kind, Vec::new())).await?;
                self.keep(name, prepared)?;
                self.out.command_complete("PREPARE");
            }
            other => self.settle(other)?,
        }
        Ok(Some(portal))
    }

    /// Statements about the session.
    fn settle(&mut self, kind: Kind) -> Result<(), PgError> {
        let tag = match kind {
            Kind::Set(name, value) => {
                let value = match value {
                    Some(value) => value,
                    None => self.initial.get(&name).unwrap_or("").to_owned(),
                };
                if let Some(reported) = self.settings.set(&name, &value)? {
                    self.out.parameter_status(reported, &value);
                }
                "SET"
            }
            Kind::Begin => {
                if self.status != b'I' {
                    self.warn("25001", "there is already a transaction in progress");
                } else {
                    self.status = b'T';
                }
                "BEGIN"
            }
            Kind::End(tag) => {
                if self.status == b'I' {
                    self.warn("25P01", "there is no transaction in progress");
                }
                let failed = self.status == b'E';
                self.status = b'I';
                self.end_round();
                if failed { "ROLLBACK" } else { tag }
            }
            Kind::Savepoint(tag) => {
                if self.status == b'I' {
                    return Err(PgError::new(
                        "25P01",
                        format!("{tag} SAVEPOINT can only be used in transaction blocks"),
                    ));
                }
                self.status = b'T';
                tag
            }
            Kind::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            Kind::Deallocate(Some(name)) => {
                self.statement(&name)?;
                self.statements.remove(&name);
                "DEALLOCATE"
            }
            Kind::Discard => {
                self.statements.clear();
                self.portals.clear();
                self.settings = self.initial.clone();
                "DISCARD ALL"
            }
            Kind::Close(None) => {
                self.portals.retain(|name, _| name.is_empty());
                "CLOSE CURSOR ALL"
            }
            Kind::Close(Some(name)) => {
                self.portals.remove(&name).ok_or_else(|| no_cursor(&name))?;
                "CLOSE CURSOR"
            }
            Kind::Nothing(tag) => tag,
            other => return Err(PgError::new("XX000", format!("{other:?} is not about the session"))),
        };
        self.out.command_complete(tag);
        Ok(())
    }

    fn warn(&mut self, code: &str, message: &str) {
        let field = |letter, text: &str| (letter, text.to_owned());
        let fields =
            [field(b'S', "WARNING"), field(b'V', "WARNING"), field(b'C', code), field(b'M', message)];
        self.out.report(b'N', &fields);
    }

    fn show(&mut self, name: &str, formats: &Formats, describe: bool) -> Result<(), PgError> {
        let columns = show_columns(name);
        let all = name.eq_ignore_ascii_case("all");
        let batch = if all {
            let settings = self.settings.all();
            let names: StringArray = settings.iter().map(|(n, _)| Some(n.as_str())).collect();
            let values: StringArray = settings.iter().map(|(_, v)| Some(v.as_str())).collect();
            let descriptions = StringArray::from(vec![""; settings.len()]);
            RecordBatch::try_from_iter([
                ("name", Arc::new(names) as _),
                ("setting", Arc::new(values) as _),
                ("description", Arc::new(descriptions) as _),
            ])
        } else {
            let value = self.settings.get(name).ok_or_else(|| {
                PgError::new("42704", format!("unrecognized configuration parameter \"{name}\""))
            })?;
            RecordBatch::try_from_iter([("value", Arc::new(StringArray::from(vec![value])) as _)])
        };
        let batch = batch.map_err(|e| PgError::new("XX000", e.to_string()))?;
        if describe {
            self.out.row_description(&described(&columns, formats));
        }
        encode::rows(&mut self.out, &batch, 0, batch.num_rows(), &formatted(&columns, formats))?;
        self.out.command_complete("SHOW");
        Ok(())
    }

    async fn fetch(
        &mut self,
        name: &str,
        count: Option<usize>,
        formats: &Formats,
        describe: bool,
    ) -> Result<(), Failure> {
        let Some(mut cursor) = self.portals.remove(name) else { return Err(no_cursor(name).into()) };
        cursor.formats = formats.clone();
        if describe && let Some(columns) = &cursor.columns {
            self.out.row_description(&described(columns, formats));
        }
        let sent = self.send_rows(&mut cursor, count.unwrap_or(usize::MAX), false).await?;
        self.portals.insert(name.to_owned(), cursor);
        self.out.command_complete(&format!("FETCH {sent}"));
        Ok(())
    }

    fn rows_done(&mut self, portal: &Portal, sent: usize, limit: usize, tag: &str) {
        match portal.rows {
            Rows::Running { .. } if sent >= limit => self.out.portal_suspended(),
            _ if tag == "SELECT" => self.out.command_complete(&format!("SELECT {sent}")),
            _ => self.out.command_complete(tag),
        }
    }

    /// Sends up to `limit` rows of a running portal; how many there were.
    async fn send_rows(
        &mut self,
        portal: &mut Portal,
        limit: usize,
        describe: bool,
    ) -> Result<usize, Failure> {
        let mut sent = 0;
        while sent < limit {
            let Rows::Running { running, batch } = &mut portal.rows else { break };
            let Some((rows, from)) = batch.take() else {
                match self.wait(running.next()).await? {
                    Some(Piece::Batch(rows)) => *batch = Some((rows, 0)),
                    Some(Piece::Columns(columns)) => {
                        if let Some(promised) = &portal.columns
                            && promised.len() != columns.len()
                        {
                            return Err(
                                PgError::new("0A000", "cached plan must not change result type").into()
                            );
                        }
                        if portal.columns.is_none() {
                            portal.columns = Some(columns);
                        }
                        if describe && let Some(columns) = &portal.columns {
                            self.out.row_description(&described(columns, &portal.formats));
                        }
                    }
                    None => portal.rows = Rows::Done,
                }
                continue;
            };
            // A piece at a time, so that what waits to be sent stays small.
            let to = rows.num_rows().min(from + (limit - sent).min(1024));
            if let Some(columns) = &portal.columns {
                encode::rows(&mut self.out, &rows, from, to, &formatted(columns, &portal.formats))?;
            }
            sent += to - from;
            if to < rows.num_rows() {
                *batch = Some((rows, to));
            }
            if self.out.bytes.len() >= SEND_AT {
                self.flush().await?;
            }
            if self.stop.asked.swap(false, Ordering::AcqRel) {
                return Err(PgError::new("57014", "canceling statement due to user request").into());
            }
        }
        Ok(sent)
    }
}

fn no_portal(name: &str) -> PgError {
    PgError::new("34000", format!("portal \"{name}\" does not exist"))
}

fn no_cursor(name: &str) -> PgError {
    PgError::new("34000", format!("cursor \"{name}\" does not exist"))
}

/// `SHOW TABLES` as the question that it is.
fn show_tables(statement: Statement) -> Result<Statement, PgError> {
    match statement {
        Statement::ShowTables { .. } => Ok(rewrite::parse(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name",
        )?
        .remove(0)),
        other => Ok(other),
    }
}

fn show_columns(name: &str) -> Arc<Vec<ResultColumn>> {
    let column = |name: &str| ResultColumn {
        name: name.to_owned(),
        kind: ColumnType { scalar: types::TEXT, array: false },
    };
    Arc::new(match name.eq_ignore_ascii_case("all") {
        true => vec![column("name"), column("setting"), column("description")],
        false => vec![column(name)],
    })
}

fn described(columns: &[ResultColumn], formats: &Formats) -> Vec<ColumnDescription> {
    formatted(columns, formats).into_iter().map(|(_, d)| d).collect()
}

fn formatted(columns: &[ResultColumn], formats: &Formats) -> Vec<(ColumnType, ColumnDescription)> {
    let column = |(i, c): (usize, &ResultColumn)| {
        let described = ColumnDescription {
            name: c.name.clone(),
            type_oid: c.kind.oid(),
            size: c.kind.size(),
            binary: formats.binary(i),
        };
        (c.kind, described)
    };
    columns.iter().enumerate().map(column).collect()
}
