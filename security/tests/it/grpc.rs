//! tonic over the listener: calls between roles, and calls of clients with credentials.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    task::{Context, Poll},
};

use http::{Request, Response};
use sextant_security::{
    Authenticator, ClientTls, Connector, GrpcAuthLayer, Identity, Listener, Protocol, Role, RoleLayer,
    ServerTls,
};
use tokio::net::TcpListener;
use tonic::{body::Body, server::NamedService, transport::Endpoint};
use tower::{Layer, Service};

use crate::files::{Authority, Folder, client, metrics, server};

/// Answers with what the layers found.
#[derive(Clone)]
struct Shards;

impl NamedService for Shards {
    const NAME: &'static str = "test.Shards";
}

#[derive(Clone)]
struct Otlp;

impl NamedService for Otlp {
    const NAME: &'static str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
}

fn answer(request: &Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    let name = request.extensions().get::<Identity>().map_or("", Identity::name).to_owned();
    let tenants = request.headers().get("x-scope-orgid").cloned();
    let mut response = Response::builder().header("grpc-status", "0").header("seen-name", name);
    if let Some(tenants) = tenants {
        response = response.header("seen-tenants", tenants);
    }
    ready(Ok(response.body(Body::empty()).unwrap()))
}

macro_rules! service {
    ($name:ident) => {
        impl Service<Request<Body>> for $name {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = Ready<Result<Response<Body>, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<Body>) -> Self::Future {
                answer(&request)
            }
        }
    };
}
service!(Shards);
service!(Otlp);

async fn serve(tls: Option<ServerTls>, roles: RoleLayer, auth: Authenticator) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::new(socket, tls, Protocol::Grpc);
    let address = listener.local_addr().unwrap();
    let otlp = GrpcAuthLayer::new(auth, true).layer(Otlp);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(roles.layer(Shards))
            .add_service(otlp)
            .serve_with_incoming_shutdown(listener.incoming(), std::future::pending()),
    );
    address
}

/// The status of a call and what the service saw; `None` where there is no connection.
async fn call(
    to: SocketAddr,
    tls: Option<ClientTls>,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<(i32, String, String)> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
    let mut channel = endpoint.connect_with_connector(Connector::new(tls)).await.ok()?;
    let mut request = Request::post(format!("http://{to}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.ok()?;
    let response = channel.call(request.body(Body::empty()).unwrap()).await.ok()?;
    let text = |name| response.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    Some((text("grpc-status").parse().unwrap(), text("seen-name"), text("seen-tenants")))
}

#[tokio::test]
async fn calls_between_roles_need_the_role() {
    let (ours, other, folder) = (Authority::new(), Authority::new(), Folder::new());
    let own = ours.certify(&["sextant://role/ingester"]);
    let roles = RoleLayer::requiring(vec![Role::Distributor, Role::Querier]);
    let asked =
        serve(Some(server(&folder, &own, Some(&ours), false)), roles.clone(), Authenticator::open_to_all())
            .await;
    let plain = serve(None, roles, Authenticator::open_to_all()).await;
    let open = serve(None, RoleLayer::open_to_all(), Authenticator::open_to_all()).await;
    let with = |uris: &[&str]| Some(client(&ours, Some(&ours.certify(uris))));
    for (what, to, tls, expected) in [
        ("a role that may", asked, with(&["sextant://role/querier"]), Some(0)),
        ("a role that may not", asked, with(&["sextant://role/agent"]), Some(7)),
        ("no role", asked, with(&[]), Some(7)),
        ("no certificate", asked, Some(client(&ours, None)), Some(16)),
        (
            "another authority's",
            asked,
            Some(client(&ours, Some(&other.certify(&["sextant://role/querier"])))),
            None,
        ),
        ("no TLS", plain, None, Some(16)),
        ("no TLS anywhere", open, None, Some(0)),
    ] {
        let status = call(to, tls, "/test.Shards/Append", &[]).await.map(|(status, ..)| status);
        assert_eq!(status, expected, "{what}");
    }
}

#[tokio::test]
async fn calls_of_clients_need_credentials() {
    let folder = Folder::new();
    folder.write("w", "token-that-writes-for-a-only");
    folder.write("r", "token-that-reads-everything");
    let path = folder.write(
        "auth.yaml",
        "credentials:
- {name: writer, token_file: w, tenants: [a], rights: [write]}
- {name: reader, token_file: r, tenants: '*', rights: [read]}",
    );
    let auth = Authenticator::open(path, metrics()).unwrap();
    let (ours, folder) = (Authority::new(), Folder::new());
    let tls = server(&folder, &ours.certify(&[]), None, false);
    let address = serve(Some(tls), RoleLayer::open_to_all(), auth).await;
    let export = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    let (writer, reader) = (
        ("authorization", "Bearer token-that-writes-for-a-only"),
        ("authorization", "Bearer token-that-reads-everything"),
    );
    for (headers, path, expected) in [
        (&[writer][..], export, (0, "writer", "a")),
        (&[writer, ("x-scope-orgid", "a|a")], export, (0, "writer", "a")),
        (&[writer, ("x-scope-orgid", "b")], export, (7, "", "")),
        (&[writer, ("x-scope-orgid", "../a")], export, (16, "", "")),
        (&[writer], "/opentelemetry.proto.collector.metrics.v1.MetricsService/Other", (7, "", "")),
        (&[reader, ("x-scope-orgid", "a")], export, (7, "", "")),
        (&[], export, (16, "", "")),
        (&[("authorization", "Bearer no")], export, (16, "", "")),
    ] {
        let answer = call(address, Some(client(&ours, None)), path, headers).await.unwrap();
        assert_eq!((answer.0, answer.1.as_str(), answer.2.as_str()), expected, "{headers:?} {path}");
    }
}
