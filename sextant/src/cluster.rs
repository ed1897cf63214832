//! This process in its cluster: who it is, whom it asks, and what it offers to other roles.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use sextant_cluster::{
    ClusterClient, ClusterService, Discovery, Identity, IngesterNode, NodeOptions, Presence, RemoteAdmin,
    cluster_id, status,
};
use sextant_ingester::{Ingester, IngesterConfig};
use sextant_proto::rpc::{self, Connect, RemoteOptions, RemoteShards, ShardServer};
use sextant_replication::{
    GroupOptions, Member,
    metadata::{Command, DriverOptions, INGESTER, MemberInfo, MemberState},
    transport::{self, GrpcNetwork, GrpcNetworkOptions, RaftService},
};
use sextant_security::{
    ClientTls, ClientTlsFiles, Connector, Listener, Part, Protocol, Role as CertificateRole, RoleLayer,
    SecurityMetrics, ServerTls, TlsFiles,
};
use sextant_storage::Manifests;
use tokio::sync::watch;

use crate::{cli, config::Config, listeners::Bound, role::Role};

/// How long an operator's command may take to reach the metadata's leader.
const PROPOSE_PATIENCE: Duration = Duration::from_secs(10);

/// See the module's documentation.
pub struct Cluster {
    /// Through which every role writes and reads.
    pub shards: RemoteShards,
    /// What this process holds, where it is an ingester.
    pub ingester: Option<Arc<Ingester>>,
    discovery: Arc<Discovery>,
    client: ClusterClient,
    presence: Option<Presence>,
    offer: Option<Offer>,
}

/// What an ingester offers to other processes.
struct Offer {
    node: Arc<IngesterNode>,
    raft: RaftService,
    shards: ShardServer,
}

/// TLS between roles; both are there or neither.
pub struct ClusterTls {
    /// For connections to other roles.
    pub client: Option<ClientTls>,
    /// For the listener.
    pub server: Option<ServerTls>,
}

impl ClusterTls {
    /// Reads the certificates, where some are configured.
    pub fn open(config: &Config, metrics: &Arc<SecurityMetrics>) -> Result<Self> {
        let keys = ["cluster_tls.cert_file", "cluster_tls.key_file", "cluster_tls.ca_file"];
        let [Some(cert), Some(key), Some(ca)] = keys.map(|k| config.optional(k)) else {
            if let Some(key) = keys.into_iter().find(|k| config.optional(k).is_some()) {
                bail!("{key} is set, and {} are needed together", keys.join(", "));
            }
            return Ok(Self { client: None, server: None });
        };
        let identity = Some((cert.into(), key.into()));
        let client = ClientTlsFiles { ca: ca.into(), identity, server_name: None };
        let server = TlsFiles {
            cert: cert.into(),
            key: key.into(),
            client_ca: Some(ca.into()),
            require_client_cert: true,
        };
        Ok(Self {
            client: Some(ClientTls::open(client, metrics.clone()).context("cluster_tls")?),
            server: Some(
                ServerTls::open(Part::ClusterServerTls, server, metrics.clone()).context("cluster_tls")?,
            ),
        })
    }

    fn connector(&self) -> Connector {
        Connector::new(self.client.clone()).expecting(CertificateRole::Ingester)
    }

    fn connect(&self) -> Connect {
        let connector = self.connector();
        Arc::new(move |address| {
            Ok(rpc::endpoint("http", address)?.connect_with_connector_lazy(connector.clone()))
        })
    }

    fn connect_members(&self) -> transport::Connect {
        let connector = self.connector();
        Arc::new(move |member: &Member| {
            Ok(transport::endpoint("http", member)?.connect_with_connector_lazy(connector.clone()))
        })
    }
}

fn peers(config: &Config) -> Result<Vec<String>> {
    let all: Vec<String> = config
        .text("cluster.peers")
        .split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(str::to_owned)
        .collect();
    if all.is_empty() {
        bail!("cluster.peers: the addresses of the first ingesters are needed (host:port, comma-separated)");
    }
    if let Some(bad) =
        all.iter().find(|p| p.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()))
    {
        bail!("cluster.peers: {bad:?} is not host:port");
    }
    Ok(all)
}

fn name(config: &Config, address: Option<&str>) -> String {
    if let Some(name) = config.optional("cluster.node_name") {
        return name.to_owned();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let loopback = address.and_then(|a| a.parse::<SocketAddr>().ok()).filter(|a| a.ip().is_loopback());
    loopback.map_or(host.clone(), |a| format!("{host}:{}", a.port()))
}

impl Cluster {
    /// Opens an ingester's log and prepares its place in the cluster; `bound` is its listener for other roles.
    pub async fn open_ingester(
        config: &Config,
        data_dir: &Path,
        ingester: IngesterConfig,
        manifests: Arc<Manifests>,
        bound: &Bound,
        http: Option<SocketAddr>,
        tls: &ClusterTls,
    ) -> Result<Arc<Self>> {
        let identity = Identity::open(data_dir, config.text("cluster.name"))?;
        let address =
            config.optional("cluster.advertise").map_or_else(|| bound.address.to_string(), str::to_owned);
        let shards = ingester.shards;
        let ingester = Ingester::open_node(ingester, identity.node, manifests)
            .await
            .with_context(|| format!("open {}", data_dir.display()))?;
        let network = GrpcNetworkOptions {
            connect: tls.connect_members(),
            ..GrpcNetworkOptions::new(identity.cluster, identity.node)
        };
        let group = GroupOptions { network: Arc::new(GrpcNetwork::new(network)), ..GroupOptions::default() };
        let replication = u32::try_from(config.integer("cluster.replication"))
            .ok()
            .filter(|r| (1..=9).contains(r))
            .context("cluster.replication is not between 1 and 9")?;
        let info = MemberInfo {
            name: name(config, Some(&address)),
            address,
            addresses: http.map(|a| ("http".to_owned(), a.to_string())).into_iter().collect(),
            zone: config.text("cluster.zone").to_owned(),
            role: INGESTER.to_owned(),
            capacity: 1,
        };
        let options = NodeOptions {
            peers: peers(config)?,
            info,
            shards,
            replication,
            group,
            driver: DriverOptions::default(),
            version: cli::version().to_owned(),
        };
        let raft = RaftService::new(identity.cluster, identity.node);
        let client = ClusterClient::new(identity.cluster, tls.connect());
        let node = IngesterNode::new(options, identity, ingester.clone(), raft.clone(), client.clone());
        let discovery = node.discovery().clone();
        let remote = RemoteOptions { connect: tls.connect(), ..RemoteOptions::new(identity.cluster.0) };
        let offer = Offer { node, raft, shards: ShardServer::new(identity.cluster.0, ingester.clone()) };
        Ok(Arc::new(Self {
            shards: RemoteShards::new(&*discovery, remote),
            ingester: Some(ingester),
            discovery,
            client,
            presence: None,
            offer: Some(offer),
        }))
    }

    /// A process without shards.
    pub fn open(
        config: &Config,
        role: Role,
        http: Option<SocketAddr>,
        tls: &ClusterTls,
    ) -> Result<Arc<Self>> {
        let id = cluster_id(config.text("cluster.name"));
        let client = ClusterClient::new(id, tls.connect());
        let discovery = Discovery::start(peers(config)?, client.clone());
        let remote = RemoteOptions { connect: tls.connect(), ..RemoteOptions::new(id.0) };
        let http = http.map(|a| a.to_string());
        let info = MemberInfo {
            name: name(config, http.as_deref()),
            addresses: http.map(|a| ("http".to_owned(), a)).into_iter().collect(),
            zone: config.text("cluster.zone").to_owned(),
            role: role.name().to_owned(),
            ..MemberInfo::default()
        };
        Ok(Arc::new(Self {
            shards: RemoteShards::new(&*discovery, remote),
            ingester: None,
            presence: Some(Presence::new(&info, discovery.clone(), client.clone())),
            discovery,
            client,
            offer: None,
        }))
    }

    /// Serves other roles until `stopped`, where this is an ingester.
    pub async fn serve(
        self: Arc<Self>,
        bound: Bound,
        tls: Option<ServerTls>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<()> {
        use CertificateRole::{Agent, Compactor, Distributor, Ingester, Operator, Querier, Ruler};
        let Some(offer) = &self.offer else { return Ok(()) };
        let allow = |roles: &[CertificateRole]| match &tls {
            Some(_) => RoleLayer::requiring(roles.to_vec()),
            None => RoleLayer::open_to_all(),
        };
        let raft = tower::Layer::layer(&allow(&[Ingester]), offer.raft.clone());
        let everyone = [Agent, Distributor, Ingester, Compactor, Querier, Ruler, Operator];
        let shards = tower::Layer::layer(
            &allow(&[Ingester, Distributor, Querier, Compactor, Ruler]),
            offer.shards.clone(),
        );
        let cluster: ClusterService = offer.node.service();
        let cluster = tower::Layer::layer(&allow(&everyone), cluster);
        let incoming = Listener::new(bound.socket, tls, Protocol::Grpc).incoming();
        tonic::transport::Server::builder()
            .initial_stream_window_size(transport::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(transport::CONNECTION_WINDOW_BYTES)
            .tcp_nodelay(true)
            .add_service(raft)
            .add_service(shards)
            .add_service(cluster)
            .serve_with_incoming_shutdown(incoming, async move {
                let _ = stopped.wait_for(|s| *s).await;
            })
            .await
            .context(bound.name)
    }

    /// Takes its place in the cluster until `stopped`.
    pub async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let stop = async {
            let _ = stopped.wait_for(|s| *s).await;
        };
        let work = async {
            if let Some(offer) = &self.offer {
                offer.node.run().await;
            } else if let Some(presence) = &self.presence {
                presence.run().await;
            }
        };
        tokio::select! {
            () = stop => {}
            () = work => {}
        }
        if let Some(presence) = &self.presence {
            presence.end().await;
        }
    }

    /// Gives its leaderships away, before its listeners close.
    pub async fn hand_over(&self) {
        if let Some(offer) = &self.offer {
            offer.node.hand_over().await;
        }
    }

    /// Ends its groups.
    pub async fn shutdown(&self) {
        if let Some(offer) = &self.offer {
            offer.node.shutdown().await;
        }
        if let Some(ingester) = &self.ingester {
            ingester.shutdown().await;
        }
    }

    /// Writes everything that was acknowledged before the call into blocks.
    pub async fn flush(&self) -> Result<()> {
        let admin = RemoteAdmin::new(self.discovery.clone(), self.client.clone());
        let shards: Vec<u32> = self.discovery.state().shards.keys().copied().collect();
        let admin = &admin;
        let flushes = shards.into_iter().map(|shard| async move {
            admin.flush(shard).await.with_context(|| format!("flush of shard {shard}"))
        });
        futures::future::try_join_all(flushes).await.map(drop)
    }

    /// Why this process cannot do its part, as a person reads it.
    pub fn obstacles(&self) -> Vec<String> {
        let mut all: Vec<String> = self.discovery.obstacle().into_iter().collect();
        if let Some(offer) = &self.offer {
            all.extend(offer.node.obstacles().into_iter().map(|(_, text)| text));
        }
        all
    }

    /// Appends the metrics of calls between roles and, of an ingester, of its groups.
    pub fn render_metrics(&self, out: &mut String) {
        self.shards.metrics().render_client(out);
        if let Some(offer) = &self.offer {
            offer.shards.metrics().render_server(out);
            offer.node.render_metrics(out);
        }
    }

    /// Members, shards, leaders, lag, and what moves.
    pub async fn status(&self) -> status::ClusterStatus {
        status::collect(&self.discovery, &self.client).await
    }

    /// Changes where a member is in its life, by its name or number.
    pub async fn set_member(&self, name: &str, state: MemberState) -> Result<()> {
        let known = self.discovery.state();
        let is_it = |(node, m): &(&_, &sextant_replication::metadata::MemberRecord)| {
            m.info.name == name || format!("{node}") == name
        };
        let mut found = known.members.iter().filter(|m| m.1.state != MemberState::Left).filter(is_it);
        let Some((node, _)) = found.next() else { bail!("no ingester is called {name:?}") };
        let command = Command::SetMemberState { node: *node, state };
        let addresses = self.discovery.addresses();
        self.client.propose(&addresses, &command, PROPOSE_PATIENCE).await?;
        Ok(())
    }
}
