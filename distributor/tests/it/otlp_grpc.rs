//! OTLP over gRPC, through a real connection.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    metrics::v1::{Gauge, Metric, NumberDataPoint, metric::Data, number_data_point},
};
use serde_json::Value;
use sextant_distributor::{
    Distributor, DistributorConfig,
    otlp::{MetricsReceiver, OtlpOptions, metrics_service},
};
use sextant_model::TenantId;
use sextant_proto::{Limits, LimitsHandle, ShardError, TenantLimits};
use tonic::{
    Code, Request, Status,
    body::Body,
    codec::CompressionEncoding,
    server::NamedService,
    transport::{Channel, Server, server::TcpIncoming},
};
use tower::Service;

use crate::{
    fake::Fake,
    otlp_input::{attribute, request},
    send::Bench,
};

async fn client(bench: &Bench) -> MetricsServiceClient<Channel> {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = incoming.local_addr().unwrap();
    let tenant = Arc::new(|header: Option<&str>| match header {
        Some("nobody") => Err("no tenant of that name".to_owned()),
        name => Ok(TenantId::new(name.unwrap_or("anonymous")).unwrap()),
    });
    let service = metrics_service(bench.distributor.clone(), OtlpOptions::default(), tenant);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    MetricsServiceClient::connect(format!("http://{address}")).await.unwrap()
}

fn gauge(value: &str) -> ExportMetricsServiceRequest {
    let point = NumberDataPoint {
        attributes: vec![attribute("k", value)],
        time_unix_nano: 5_000_000,
        value: Some(number_data_point::Value::AsDouble(0.1)),
        ..NumberDataPoint::default()
    };
    let data = Some(Data::Gauge(Gauge { data_points: vec![point] }));
    request(vec![], &Value::Null, vec![Metric { name: "m".into(), data, ..Metric::default() }])
}

#[tokio::test]
async fn exports_are_stored_whatever_their_compression() {
    let bench = Bench::new(2);
    let plain = client(&bench).await;
    let with = |encoding| plain.clone().send_compressed(encoding).accept_compressed(encoding);
    for (i, mut client) in [plain.clone(), with(CompressionEncoding::Gzip), with(CompressionEncoding::Zstd)]
        .into_iter()
        .enumerate()
    {
        let response = client.export(gauge(&i.to_string())).await.unwrap();
        assert!(response.get_ref().partial_success.is_none());
    }
    assert_eq!(bench.fake.series(), [r#"m{k="0"}"#, r#"m{k="1"}"#, r#"m{k="2"}"#]);
}

#[tokio::test]
async fn rejected_points_tenants_and_errors_are_told() {
    let bench = Bench::with_limits(TenantLimits { max_label_value_length: 5, ..TenantLimits::default() });
    let mut client = client(&bench).await;
    let partial = client.export(gauge("too long")).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_data_points, 1);
    assert!(partial.error_message.contains("max_label_value_length (5)"), "{}", partial.error_message);

    let of_tenant = |name: &str| {
        let mut request = Request::new(gauge("a"));
        request.metadata_mut().insert("x-scope-orgid", name.parse().unwrap());
        request
    };
    let e = client.export(of_tenant("nobody")).await.unwrap_err();
    assert_eq!((e.code(), e.message()), (Code::Unauthenticated, "no tenant of that name"));
    client.export(of_tenant("t1")).await.unwrap();
    assert_eq!(bench.fake.stored().into_keys().next().unwrap().0, "t1");

    for (e, code, is_retried) in [
        // Senders repeat this code only with `RetryInfo`.
        (ShardError::Overloaded("memory bound reached".into()), Code::ResourceExhausted, true),
        (ShardError::Unavailable("no majority".into()), Code::Unavailable, true),
        (ShardError::Malformed("bad".into()), Code::Unavailable, false),
    ] {
        (0..2).for_each(|s| bench.fake.fail_next(s, e.clone(), false));
        let status = client.export(gauge("b")).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, e.to_string().as_str()));
        let info = String::from_utf8_lossy(status.details()).contains("google.rpc.RetryInfo");
        assert_eq!(info, is_retried, "{status:?}");
        bench.fake.forget_failures();
    }
}

/// The codes of the specification: senders repeat `OUT_OF_RANGE`, which is what tonic would say.
#[tokio::test]
async fn messages_that_cannot_be_read_say_why_and_are_not_repeated() {
    let limits = |max_request_bytes| TenantLimits {
        max_request_bytes,
        max_label_value_length: 0,
        ..TenantLimits::default()
    };
    let of_tenants =
        Limits::new(limits(1 << 12)).with_override(TenantId::new("large").unwrap(), limits(1 << 14));
    let fake = Fake::new(1);
    let config = DistributorConfig::default();
    let distributor = Arc::new(Distributor::new(config, LimitsHandle::new(of_tenants), fake.clone()));
    let bench = Bench { fake, distributor };
    let plain = client(&bench).await;
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = encoding.iter().fold(plain.clone(), |c, e| c.send_compressed(*e));
        for (tenant, size, limit) in [
            ("small", 1 << 12, Some("limit max_request_bytes (4096) exceeded")),
            ("small", 1 << 11, None),
            ("large", 1 << 12, None),
            ("large", 1 << 14, Some("limit max_request_bytes (16384) exceeded")),
        ] {
            let mut request = Request::new(gauge(&"x".repeat(size)));
            request.metadata_mut().insert("x-scope-orgid", tenant.parse().unwrap());
            match (client.export(request).await, limit) {
                (Ok(_), None) => {}
                (Err(e), Some(limit)) => {
                    assert_eq!(e.code(), Code::ResourceExhausted, "{e:?}");
                    assert!(e.message().starts_with(limit), "{e:?}");
                    assert!(e.message().ends_with("raise it with limits key max_request_bytes"), "{e:?}");
                    assert!(e.details().is_empty(), "{e:?}");
                }
                (answer, _) => panic!("{encoding:?} {tenant} {size}: {answer:?}"),
            }
        }
    }
}

/// Bytes that are no message, behind gRPC's own frame.
#[tokio::test]
async fn malformed_messages_are_the_senders_fault() {
    let bench = Bench::new(1);
    let tenant = Arc::new(|_: Option<&str>| Ok(TenantId::anonymous()));
    let service = metrics_service(bench.distributor.clone(), OtlpOptions::default(), tenant);
    for (message, is_compressed, code) in [
        (&b"\x0a\xff"[..], 0, Code::InvalidArgument),
        (b"{}", 0, Code::InvalidArgument),
        (b"not gzip", 1, Code::InvalidArgument),
        (b"", 7, Code::InvalidArgument),
        (b"", 0, Code::Ok),
    ] {
        let frame = [&[is_compressed], &(message.len() as u32).to_be_bytes()[..], message].concat();
        let request = http::Request::post(format!("/{}/Export", MetricsReceiver::NAME))
            .header("content-type", "application/grpc")
            .header("grpc-encoding", "gzip")
            .body(Body::new(http_body_util::Full::new(Bytes::from(frame))))
            .unwrap();
        let response = service.clone().call(request).await.unwrap();
        let status = Status::from_header_map(response.headers());
        assert_eq!(status.as_ref().map_or(Code::Ok, Status::code), code, "{message:?}: {status:?}");
        if let Some(status) = status {
            assert!(status.message().starts_with("malformed OTLP metrics request: "), "{status:?}");
        }
    }
    assert_eq!(bench.fake.lock().appends, 0);
}
