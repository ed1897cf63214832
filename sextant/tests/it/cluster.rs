//! A cluster of processes: written to, killed piece by piece, drained, and asked.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use sextant_security::Role;

use crate::{
    binary::{Sextant, binary},
    ledger::{Ledger, Written, eventually},
    tls::Authority,
};

struct Process {
    name: String,
    role: &'static str,
    http: u16,
    args: Vec<String>,
    running: Option<Sextant>,
}

/// Processes in folders below one, on ports that were free when they were chosen.
struct Cluster {
    folder: tempfile::TempDir,
    common: Vec<String>,
    processes: Vec<Process>,
}

fn free_ports(n: usize) -> Vec<u16> {
    let bound: Vec<_> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|b| b.local_addr().unwrap().port()).collect()
}

impl Cluster {
    /// Chooses ports and makes folders; nothing runs yet.
    fn new(ingesters: usize, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = folder.path().join("objects");
        std::fs::create_dir_all(&objects).unwrap();
        let ports = free_ports(ingesters);
        let peers: Vec<String> = ports.iter().take(3).map(|p| format!("127.0.0.1:{p}")).collect();
        let mut common = vec![
            format!("--object-store=file://{}", objects.display()),
            format!("--cluster.peers={}", peers.join(",")),
            "--ingester.shards=2".to_owned(),
            "--ingester.log-segment-size=1MiB".to_owned(),
            "--compactor.delete-delay=1s".to_owned(),
        ];
        common.extend(extra.iter().map(|e| (*e).to_owned()));
        let mut cluster = Self { folder, common, processes: Vec::new() };
        for (i, port) in ports.into_iter().enumerate() {
            let args = vec![format!("--cluster.listen=127.0.0.1:{port}")];
            cluster.add(&format!("ingester-{i}"), "ingester", args);
        }
        for i in 0..2 {
            let off = ["otlp.grpc", "otlp.http"].map(|l| format!("--{l}.listen=off"));
            cluster.add(&format!("distributor-{i}"), "distributor", off.to_vec());
            let off = ["grpc", "postgres"].map(|l| format!("--{l}.listen=off"));
            cluster.add(&format!("querier-{i}"), "querier", off.to_vec());
        }
        cluster.add("compactor", "compactor", Vec::new());
        cluster
    }

    fn add(&mut self, name: &str, role: &'static str, args: Vec<String>) {
        let http = free_ports(1)[0];
        self.processes.push(Process { name: name.to_owned(), role, http, args, running: None });
    }

    fn start(&mut self, name: &str) {
        let (root, common) = (self.folder.path().to_owned(), self.common.clone());
        let process = self.process(name);
        process.running = Some(spawn(&root, &common, process));
    }

    /// Starts everything but the processes named, and waits until it is ready.
    fn start_all_but(&mut self, left_out: &[&str]) {
        let names: Vec<_> = self.processes.iter().map(|p| p.name.clone()).collect();
        let names: Vec<_> = names.iter().filter(|n| !left_out.contains(&n.as_str())).collect();
        names.iter().for_each(|n| self.start(n));
        names.iter().for_each(|n| self.wait_ready(n));
    }

    fn wait_ready(&self, name: &str) {
        let process = self.get(name);
        eventually(&format!("{name} is ready"), || {
            let client = &process.client;
            let answer = client.get(format!("{}/ready", process.url)).timeout(Duration::from_secs(2)).send();
            match answer {
                Ok(r) if r.status() == 200 => Ok(()),
                Ok(r) => Err(r.text().unwrap_or_default()),
                Err(e) => Err(e.to_string()),
            }
        });
    }

    fn process(&mut self, name: &str) -> &mut Process {
        self.processes.iter_mut().find(|p| p.name == name).unwrap()
    }

    fn get(&self, name: &str) -> &Sextant {
        self.processes.iter().find(|p| p.name == name).unwrap().running.as_ref().unwrap()
    }

    /// Ends a process at once, as `kill -9` does.
    fn kill(&mut self, name: &str) {
        self.process(name).running = None;
    }

    fn command(&self, args: &[&str]) -> (bool, String) {
        let url = &self.get("querier-0").url;
        let output = Command::new(binary()).args(args).args(["--url", url]).output().unwrap();
        let text =
            String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        (output.status.success(), text.into_owned())
    }

    fn status(&self) -> Value {
        let (done, text) = self.command(&["status", "--json"]);
        assert!(done, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The name of the ingester that leads a shard.
    fn leader(&self, shard: usize) -> Option<String> {
        let status = self.status();
        let leader = status["shards"][shard]["leader"].as_u64()?;
        let members = status["members"].as_array()?;
        Some(members.iter().find(|m| m["node"] == leader)?["name"].as_str()?.to_owned())
    }

    fn write(&self, ledger: &mut Ledger, count: usize) -> usize {
        let mut refused = 0;
        for n in 0..count {
            match ledger.write(self.get(&format!("distributor-{}", n % 2))) {
                Written::Acknowledged => {}
                Written::Refused(..) => refused += 1,
                Written::Gone => panic!("a distributor is gone"),
            }
        }
        refused
    }
}

fn spawn(root: &Path, common: &[String], process: &Process) -> Sextant {
    let folder = root.join(&process.name);
    std::fs::create_dir_all(&folder).unwrap();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log.txt")).unwrap();
    let child = Command::new(binary())
        .arg(process.role)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg(format!("--http.listen=127.0.0.1:{}", process.http))
        .arg(format!("--cluster.node-name={}", process.name))
        .args(common)
        .args(&process.args)
        .env("SEXTANT_LOG_LEVEL", "warn,openraft=error")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let client = reqwest::blocking::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    Sextant {
        child,
        url: format!("http://127.0.0.1:{}", process.http),
        grpc: String::new(),
        otlp_grpc: String::new(),
        otlp_http: String::new(),
        postgres: String::new(),
        client,
    }
}

#[test]
fn ingesters_die_one_after_the_other_and_nothing_is_lost_or_doubled() {
    let mut cluster = Cluster::new(3, &["--ingester.flush-age=2s"]);
    cluster.start_all_but(&[]);
    let mut ledger = Ledger::new(None, "cluster_total", 5);
    assert_eq!(cluster.write(&mut ledger, 20), 0, "nothing is refused while nothing happens");
    for round in 0..3 {
        let victim =
            eventually("shard 0 has a leader", || cluster.leader(round % 2).ok_or("none".to_owned()));
        cluster.kill(&victim);
        // An election takes up to two seconds, a distributor tries for ten.
        let refused = cluster.write(&mut ledger, 30);
        assert_eq!(refused, 0, "round {round}: a distributor waits for the next leader");
        for querier in ["querier-0", "querier-1"] {
            ledger.check(cluster.get(querier), &format!("round {round}, {querier}, {victim} is down"));
        }
        cluster.start(&victim);
        cluster.write(&mut ledger, 10);
        cluster.wait_ready(&victim);
    }
    let (status, body) = crate::ledger::flush(cluster.get("querier-0"), None);
    assert_eq!(status, 204, "{body}");
    ledger.check_stored(cluster.get("querier-1"), "at the end");
    let text = cluster.get("ingester-0").get("/metrics").1;
    assert!(text.contains("sextant_group_has_leader{group=\"0\"} 1"), "{text}");
    assert!(text.contains("sextant_node_obstacles{reason=\"no_leader\"} 0"), "{text}");
}

#[test]
fn an_ingester_is_drained_and_another_takes_its_place() {
    let mut cluster = Cluster::new(4, &["--log.level=warn"]);
    cluster.start_all_but(&["ingester-3"]);
    let mut ledger = Ledger::new(None, "moved_total", 3);
    cluster.write(&mut ledger, 20);
    cluster.start("ingester-3");
    cluster.wait_ready("ingester-3");
    let (done, text) = cluster.command(&["ingester", "drain", "nobody"]);
    assert!(!done && text.contains("no ingester is called"), "{text}");
    let (done, text) = cluster.command(&["ingester", "drain", "ingester-0"]);
    assert!(done, "{text}");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert_eq!(cluster.write(&mut ledger, 5), 0);
        let status = cluster.status();
        let members = status["members"].as_array().unwrap();
        if members.iter().all(|m| m["name"] != "ingester-0") {
            assert_eq!(members.len(), 3);
            break;
        }
        assert!(Instant::now() < until, "{status}");
    }
    ledger.check(cluster.get("querier-0"), "after the drain");
    cluster.kill("ingester-0");
    assert_eq!(cluster.write(&mut ledger, 5), 0);
    let (_, text) = cluster.command(&["status"]);
    assert!(text.contains("ingester-3") && !text.contains("ingester-0"), "{text}");
    // A whole stop and a start: everything comes back from the logs.
    for i in 1..4 {
        cluster.kill(&format!("ingester-{i}"));
    }
    for i in 1..4 {
        cluster.start(&format!("ingester-{i}"));
    }
    for i in 1..4 {
        cluster.wait_ready(&format!("ingester-{i}"));
    }
    assert_eq!(cluster.write(&mut ledger, 5), 0);
    ledger.check(cluster.get("querier-1"), "after a stop of all ingesters");
}

/// Asks one of two processes, the other where it is not there; the last error where neither is for long.
fn ask_either(
    urls: &[String],
    ask: impl Fn(&str) -> reqwest::Result<(u16, String)>,
) -> Result<String, String> {
    let mut error = String::new();
    for attempt in 0..40 {
        match ask(&urls[attempt % urls.len()]) {
            Ok((200..300, body)) => return Ok(body),
            Ok((status, body)) => error = format!("{status}: {body}"),
            Err(e) => error = e.to_string(),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(error)
}

#[test]
fn every_process_is_restarted_in_turn_and_no_client_sees_more_than_a_retry() {
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

    let mut cluster = Cluster::new(3, &["--ingester.flush-age=3s"]);
    cluster.start_all_but(&[]);
    let urls = |names: [&str; 2]| names.map(|n| cluster.get(n).url.clone());
    let (distributors, queriers) =
        (urls(["distributor-0", "distributor-1"]), urls(["querier-0", "querier-1"]));
    let (acknowledged, stop) = (AtomicI64::new(0), AtomicBool::new(false));
    let client = || reqwest::blocking::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let client = client();
            while !stop.load(SeqCst) {
                let t = acknowledged.load(SeqCst) + 1;
                let labels = vec![("__name__", "rolling".to_owned())];
                let body = crate::binary::remote_write(&[(labels, vec![(t * 10, t as f64)])]);
                let post = |url: &str| {
                    let request = client.post(format!("{url}/api/v1/push")).body(body.clone());
                    let answer = request.header("Content-Type", "application/x-protobuf").send()?;
                    Ok((answer.status().as_u16(), answer.text()?))
                };
                ask_either(&distributors, post).map_err(|e| format!("write {t}: {e}"))?;
                acknowledged.store(t, SeqCst);
            }
            Ok::<_, String>(())
        });
        let reader = scope.spawn(|| {
            let client = client();
            let mut asked = 0;
            while !stop.load(SeqCst) {
                let least = acknowledged.load(SeqCst);
                let get = |url: &str| {
                    let query = "query=sum_over_time(rolling[1d])/sum_over_time(rolling[1d])*count_over_time(rolling[1d])";
                    let answer = client.get(format!("{url}/api/v1/query?{query}&time=80000")).send()?;
                    Ok((answer.status().as_u16(), answer.text()?))
                };
                let body = ask_either(&queriers, get).map_err(|e| format!("query: {e}"))?;
                let answer: Value = serde_json::from_str(&body).map_err(|e| e.to_string())?;
                let found = answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0").parse::<i64>();
                let most = acknowledged.load(SeqCst) + 1;
                let found = found.map_err(|e| e.to_string())?;
                if !(least..=most).contains(&found) {
                    return Err(format!("found {found} samples, {least} to {most} were written: {body}"));
                }
                asked += 1;
            }
            Ok(asked)
        });
        let names: Vec<_> = cluster.processes.iter().map(|p| p.name.clone()).collect();
        let watch = || writer.is_finished() || reader.is_finished();
        for name in names {
            let process = cluster.process(&name).running.as_mut().unwrap();
            let _ = Command::new("kill").arg(process.child.id().to_string()).status();
            let until = Instant::now() + Duration::from_secs(40);
            while process.child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < until, "{name} does not stop");
                std::thread::sleep(Duration::from_millis(20));
            }
            cluster.kill(&name);
            cluster.start(&name);
            cluster.wait_ready(&name);
            if watch() {
                break;
            }
        }
        stop.store(true, SeqCst);
        assert_eq!(writer.join().unwrap(), Ok(()));
        let asked = reader.join().unwrap();
        assert!(asked.as_ref().is_ok_and(|n| *n > 10), "{asked:?}");
    });
    assert!(acknowledged.into_inner() > 100);
}

#[test]
fn roles_show_their_certificates() {
    let mut cluster = Cluster::new(1, &["--cluster.replication=1"]);
    let folder = cluster.folder.path().to_owned();
    let authority = Authority::new(&folder, "ca");
    let with = |name: &str| {
        let file = |ending: &str| folder.join(format!("{name}.{ending}")).display().to_string();
        vec![
            format!("--cluster-tls.cert-file={}", file("crt")),
            format!("--cluster-tls.key-file={}", file("key")),
            format!("--cluster-tls.ca-file={}", folder.join("ca.pem").display()),
        ]
    };
    for (name, role) in [
        ("ingester-0", Role::Ingester),
        ("distributor-0", Role::Distributor),
        ("querier-0", Role::Querier),
        // Certificates of the cluster, but of agents: they may ask who is there, and neither read nor write.
        ("distributor-1", Role::Agent),
        ("querier-1", Role::Agent),
    ] {
        authority.certify_as(&folder, name, Some(role));
        let args = with(name);
        cluster.process(name).args.extend(args);
    }
    // No certificate at all.
    for name in ["ingester-0", "distributor-0", "querier-0", "distributor-1", "querier-1", "compactor"] {
        cluster.start(name);
    }
    for name in ["ingester-0", "distributor-0", "querier-0", "distributor-1", "querier-1"] {
        cluster.wait_ready(name);
    }
    let mut ledger = Ledger::new(None, "secret_total", 2);
    assert!(matches!(ledger.write(cluster.get("distributor-0")), Written::Acknowledged));
    ledger.check(cluster.get("querier-0"), "with certificates");
    let mut foreign = Ledger::new(None, "foreign_total", 2);
    let refused = foreign.write(cluster.get("distributor-1"));
    assert!(matches!(&refused, Written::Refused(_, why) if why.contains("role")), "{refused:?}");
    let (status, body) = cluster.get("querier-1").get("/api/v1/query?query=secret_total&time=1");
    assert!(status >= 500 && !body.contains("\"value\""), "{status}: {body}");
    let (status, body) = cluster.get("compactor").get("/ready");
    assert!(status == 503 && body.contains("no ingester of the cluster answers"), "{status}: {body}");
}

#[test]
fn an_answer_is_whole_or_an_error_or_says_what_is_missing() {
    let mut cluster = Cluster::new(3, &["--querier.timeout=8s"]);
    cluster.start_all_but(&["querier-1", "distributor-1", "compactor"]);
    let mut ledger = Ledger::new(None, "partly_total", 4);
    for _ in 0..4 {
        assert!(matches!(ledger.write(cluster.get("distributor-0")), Written::Acknowledged));
    }
    for name in ["ingester-0", "ingester-1"] {
        cluster.kill(name);
    }
    let querier = cluster.get("querier-0");
    let (status, body) = querier.get("/api/v1/query?query=count(partly_total)&time=4");
    assert!(status >= 500 && body.contains("\"status\":\"error\""), "{status}: {body}");
    let (status, body) = querier.get("/api/v1/query?query=count(partly_total)&time=4&partial_response=true");
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let warnings: Vec<_> =
        answer["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 2, "{body}");
    assert!(warnings[0].starts_with("partial answer: recent data of shard 0 is missing: "), "{body}");
    assert_eq!(querier.get("/api/v1/query?query=up&partial_response=perhaps").0, 400);
    let (status, body) = cluster.get("ingester-2").get("/ready");
    assert!(status == 503 && body.contains("has no leader"), "{status}: {body}");
}
