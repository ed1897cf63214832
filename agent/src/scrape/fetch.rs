//! One HTTP request to a target, bounded in time and in size before and after decompression.

use std::{io::Read, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use reqwest::{
    Certificate, Client, Identity, Response,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT,
    },
    redirect, tls,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    config::{Authorization, JobConfig, Secret, TlsVersion},
    negotiate::{BodyFormat, accept_header, body_format},
    target::Target,
};
use crate::error::AgentError;

/// What a body may have where the job sets no limit: a bound on what one bad target can make us hold.
const BODY_BYTES_MAX: u64 = 256 << 20;
const AGENT: &str = concat!("Sextant/", env!("CARGO_PKG_VERSION"));

/// Why a target gave nothing to parse. The text is the target's `lastError`.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request failed.
    #[error("{0}")]
    Request(String),
    /// The time is over.
    #[error("context deadline exceeded")]
    Timeout,
    /// The target answered with another status than 200.
    #[error("server returned HTTP status {0}")]
    Status(String),
    /// The body is too large.
    #[error("body size limit exceeded ({0} bytes)")]
    TooLarge(u64),
    /// The body is not what its encoding says.
    #[error("body: {0}")]
    Encoding(String),
    /// The answer's type is none of ours and the job names none to fall back to.
    #[error("received unsupported Content-Type {0:?} and no fallback_scrape_protocol specified for target")]
    ContentType(String),
    /// A file with credentials cannot be read.
    #[error("credentials: {0}")]
    Credentials(String),
}

/// An answer.
#[derive(Debug)]
pub struct Fetched {
    /// The body, decompressed.
    pub body: Bytes,
    /// Its format.
    pub format: BodyFormat,
    /// The room that the body takes, given back when this is dropped.
    pub permit: OwnedSemaphorePermit,
}

/// Asks the targets of one job.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    accept: HeaderValue,
    trust: u64,
}

impl Fetcher {
    /// A client with the job's trust and redirect policy.
    pub fn new(job: &JobConfig) -> Result<Self, AgentError> {
        let error = |reason: String| AgentError::Client { job: job.job_name.clone(), reason };
        let policy =
            if job.follow_redirects { redirect::Policy::default() } else { redirect::Policy::none() };
        let mut builder = Client::builder()
            .redirect(policy)
            // Environment variables of the process must not send scrapes elsewhere.
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .pool_max_idle_per_host(1)
            .danger_accept_invalid_certs(job.tls.insecure_skip_verify);
        let read = |pem: &Secret| match pem {
            Secret::Text(text) => Ok(text.clone().into_bytes()),
            Secret::File(path) => std::fs::read(path).map_err(|e| error(format!("{}: {e}", path.display()))),
        };
        let mut trust = 0;
        if let Some(ca) = &job.tls.ca {
            let bundle = read(ca)?;
            trust = xxh3_64(&bundle);
            for certificate in Certificate::from_pem_bundle(&bundle).map_err(|e| error(chain(&e)))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        if let (Some(cert), Some(key)) = (&job.tls.cert, &job.tls.key) {
            let mut pem = read(cert)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            trust = xxh3_64_with_seed(&pem, trust);
            builder = builder.identity(Identity::from_pem(&pem).map_err(|e| error(chain(&e)))?);
        }
        let version = |v: TlsVersion| match v {
            TlsVersion::Tls12 => tls::Version::TLS_1_2,
            TlsVersion::Tls13 => tls::Version::TLS_1_3,
        };
        if let Some(min) = job.tls.min_version {
            builder = builder.min_tls_version(version(min));
        }
        if let Some(max) = job.tls.max_version {
            builder = builder.max_tls_version(version(max));
        }
        let client = builder.build().map_err(|e| error(chain(&e)))?;
        let accept = accept_header(&job.scrape_protocols);
        let accept = HeaderValue::from_str(&accept).map_err(|e| error(e.to_string()))?;
        Ok(Self { client, accept, trust })
    }

    /// A hash of the certificates and the key that this client was made with.
    pub(super) fn trust(&self) -> u64 {
        self.trust
    }

    /// Asks a target and reads its answer to the end. A body is read once `bodies` has room for it; targets that do not
    /// answer take none.
    pub async fn fetch(&self, target: &Target, bodies: &Arc<Semaphore>) -> Result<Fetched, FetchError> {
        match tokio::time::timeout(target.timeout, self.request(target, bodies)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Timeout),
        }
    }

    async fn request(&self, target: &Target, bodies: &Arc<Semaphore>) -> Result<Fetched, FetchError> {
        let job = &target.job;
        let mut request = self
            .client
            .get(target.url.clone())
            .header(ACCEPT, self.accept.clone())
            .header(USER_AGENT, AGENT)
            .header("X-Prometheus-Scrape-Timeout-Seconds", seconds(target.timeout));
        request = request.header(ACCEPT_ENCODING, if job.enable_compression { "gzip" } else { "identity" });
        request = match &job.authorization {
            None => request,
            Some(Authorization::Basic { username, password }) => {
                let password = match password {
                    Some(p) => Some(reveal(p).await?),
                    None => None,
                };
                request.basic_auth(reveal(username).await?, password)
            }
            Some(Authorization::Scheme { scheme, credentials }) => {
                request.header(AUTHORIZATION, format!("{scheme} {}", reveal(credentials).await?))
            }
        };
        let response = request.send().await.map_err(|e| FetchError::Request(chain(&e)))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().to_string()));
        }
        let format = response_format(&response, job)?;
        let is_gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|v| v == "gzip");
        let limit = if job.body_size_limit == 0 { BODY_BYTES_MAX } else { job.body_size_limit };
        // Nobody closes the semaphore; without a permit there would be no bound on memory.
        let permit = Arc::clone(bodies).acquire_owned().await.map_err(|_| FetchError::Timeout)?;
        let body = read_body(response, limit).await?;
        let body = if is_gzip { gunzip(&body, limit)? } else { body };
        Ok(Fetched { body, format, permit })
    }
}

fn response_format(response: &Response, job: &JobConfig) -> Result<BodyFormat, FetchError> {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    body_format(content_type)
        .or_else(|| job.fallback_scrape_protocol.map(|p| p.format()))
        .ok_or_else(|| FetchError::ContentType(content_type.to_owned()))
}

async fn read_body(mut response: Response, limit: u64) -> Result<Bytes, FetchError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| FetchError::Request(chain(&e)))? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(FetchError::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn gunzip(body: &[u8], limit: u64) -> Result<Bytes, FetchError> {
    let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(1 << 20));
    let mut decoder = MultiGzDecoder::new(body).take(limit + 1);
    decoder.read_to_end(&mut out).map_err(|e| FetchError::Encoding(e.to_string()))?;
    if out.len() as u64 > limit {
        return Err(FetchError::TooLarge(limit));
    }
    Ok(out.into())
}

async fn reveal(secret: &Secret) -> Result<String, FetchError> {
    match secret {
        Secret::Text(text) => Ok(text.clone()),
        Secret::File(path) => match tokio::fs::read_to_string(path).await {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(e) => Err(FetchError::Credentials(format!("{}: {e}", path.display()))),
        },
    }
}

fn seconds(timeout: Duration) -> String {
    format!("{}", timeout.as_secs_f64())
}

/// An error with its causes: reqwest's own text says only that a request failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        text.push_str(": ");
        text.push_str(&c.to_string());
        cause = c.source();
    }
    text
}
