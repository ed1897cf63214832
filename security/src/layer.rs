//! Layers in front of handlers: who is it, which right does the path need, for which tenants. Refused requests go no further.
//!
//! [`HttpAuthLayer`] and [`GrpcAuthLayer`] are for listeners of clients, and belong around everything, where the path is still
//! whole. [`RoleLayer`] is for services that other roles call.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use sextant_model::TenantId;
use tonic::server::NamedService;
use tower::{Layer, Service};

use crate::{
    credentials::Authenticator,
    error::AuthError,
    identity::Identity,
    routes::{Access, access},
    tenants::{TENANT_HEADER, named_tenants, tenants_of},
    tls::{Peer, Role},
};

/// Decides about requests.
#[derive(Clone, Debug)]
struct Gate {
    authenticator: Authenticator,
    multi_tenancy: bool,
}

impl Gate {
    /// Lets a request through, with its identity in its extensions and its tenants in `X-Scope-OrgID`, or refuses it.
    async fn admit<B>(&self, mut request: Request<B>) -> Result<Request<B>, AuthError> {
        if let header::Entry::Occupied(mut secrets) = request.headers_mut().entry(header::AUTHORIZATION) {
            // `Debug` of the headers then leaves the values out.
            secrets.iter_mut().for_each(|value| value.set_sensitive(true));
        }
        if self.authenticator.is_open_to_all() {
            request.extensions_mut().insert(Identity::everyone());
            return Ok(request);
        }
        let access = access(request.method(), request.uri().path());
        if access == Access::Open {
            return Ok(request);
        }
        let (parts, body) = request.into_parts();
        let decided = self.decide(access, &parts.headers).await;
        self.authenticator.decided(decided.as_ref().err());
        let (identity, tenants) = decided?;
        let mut request = Request::from_parts(parts, body);
        match tenants.map(HeaderValue::try_from) {
            Some(Ok(tenants)) => _ = request.headers_mut().insert(TENANT_HEADER, tenants),
            _ => _ = request.headers_mut().remove(TENANT_HEADER),
        }
        request.extensions_mut().insert(identity);
        Ok(request)
    }

    /// Whose request it is, and the tenants that it may be about as the header names them.
    async fn decide(
        &self,
        access: Access,
        headers: &HeaderMap,
    ) -> Result<(Identity, Option<String>), AuthError> {
        let identity = self.authenticator.authenticate(headers).await?;
        let decided = self.authorize(access, &identity, headers);
        if let Err(error) = &decided {
            tracing::debug!(credential = identity.name(), %error, "a request is refused");
        }
        decided.map(|tenants| {
            let joined = tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join("|");
            (identity, (!joined.is_empty()).then_some(joined))
        })
    }

    fn authorize(
        &self,
        access: Access,
        identity: &Identity,
        headers: &HeaderMap,
    ) -> Result<Vec<TenantId>, AuthError> {
        match access {
            Access::Open => Ok(Vec::new()),
            Access::Tenants(right) => {
                identity.require(right)?;
                let tenants = tenants_of(headers, identity, self.multi_tenancy)?;
                identity.authorize(right, &tenants)?;
                Ok(tenants)
            }
            Access::AnyTenant(right) => identity.require(right).map(|()| Vec::new()),
            // While multi-tenancy is off, one tenant is all of them.
            Access::AllTenants(right) if !self.multi_tenancy => {
                identity.authorize(right, &[TenantId::anonymous()]).map(|()| Vec::new())
            }
            Access::AllTenants(right) => {
                identity.authorize_all(right)?;
                Ok(named_tenants(headers)?.unwrap_or_default())
            }
            Access::Denied => Err(AuthError::UnknownPath),
        }
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// For axum: `router.layer(HttpAuthLayer::new(authenticator, multi_tenancy))`.
#[derive(Clone, Debug)]
pub struct HttpAuthLayer(Gate);

impl HttpAuthLayer {
    /// Asks for credentials, except where the authenticator is open to all.
    pub fn new(authenticator: Authenticator, multi_tenancy: bool) -> Self {
        Self(Gate { authenticator, multi_tenancy })
    }
}

impl<S> Layer<S> for HttpAuthLayer {
    type Service = HttpAuth<S>;

    fn layer(&self, inner: S) -> HttpAuth<S> {
        HttpAuth { inner, gate: self.0.clone() }
    }
}

/// What [`HttpAuthLayer`] makes.
#[derive(Clone, Debug)]
pub struct HttpAuth<S> {
    inner: S,
    gate: Gate,
}

impl<S, B, R> Service<Request<B>> for HttpAuth<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Boxed<Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (gate, mut inner) = (self.gate.clone(), ready(&mut self.inner));
        Box::pin(async move {
            match gate.admit(request).await {
                Ok(request) => inner.call(request).await,
                Err(error) => Ok(refusal(&error)),
            }
        })
    }
}

/// The service that was polled for readiness; its clone takes its place.
fn ready<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    std::mem::replace(inner, clone)
}

/// An error in the form of Prometheus' HTTP API.
fn refusal<R: From<String>>(error: &AuthError) -> Response<R> {
    let class = error.class();
    let body = serde_json::json!({
        "status": "error", "errorType": class.prometheus(), "error": error.to_string(),
    });
    let mut response = Response::new(R::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(class.http()).unwrap_or(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for challenge in error.challenges() {
        headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if *error == AuthError::Busy {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// For tonic: `Server::builder().layer(GrpcAuthLayer::new(authenticator, multi_tenancy))`.
#[derive(Clone, Debug)]
pub struct GrpcAuthLayer(Gate);

impl GrpcAuthLayer {
    /// Asks for credentials, except where the authenticator is open to all.
    pub fn new(authenticator: Authenticator, multi_tenancy: bool) -> Self {
        Self(Gate { authenticator, multi_tenancy })
    }
}

impl<S> Layer<S> for GrpcAuthLayer {
    type Service = GrpcAuth<S>;

    fn layer(&self, inner: S) -> GrpcAuth<S> {
        GrpcAuth { inner, gate: self.0.clone() }
    }
}

/// What [`GrpcAuthLayer`] makes.
#[derive(Clone, Debug)]
pub struct GrpcAuth<S> {
    inner: S,
    gate: Gate,
}

impl<S: NamedService> NamedService for GrpcAuth<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for GrpcAuth<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Boxed<Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (gate, mut inner) = (self.gate.clone(), ready(&mut self.inner));
        Box::pin(async move {
            match gate.admit(request).await {
                Ok(request) => inner.call(request).await,
                Err(error) => Ok(status(&error).into_http()),
            }
        })
    }
}

fn status(error: &AuthError) -> tonic::Status {
    tonic::Status::new(tonic::Code::from(error.class().grpc()), error.to_string())
}

/// Around a service that only some roles may call: the connection's certificate must name one of them.
#[derive(Clone, Debug)]
pub struct RoleLayer(Option<Vec<Role>>);

impl RoleLayer {
    /// Callers need one of these roles.
    pub fn requiring(roles: Vec<Role>) -> Self {
        Self(Some(roles))
    }

    /// Anyone may call: where the cluster has no certificates.
    pub fn open_to_all() -> Self {
        Self(None)
    }
}

impl<S> Layer<S> for RoleLayer {
    type Service = RoleService<S>;

    fn layer(&self, inner: S) -> RoleService<S> {
        RoleService { inner, roles: self.0.clone() }
    }
}

/// What [`RoleLayer`] makes.
#[derive(Clone, Debug)]
pub struct RoleService<S> {
    inner: S,
    roles: Option<Vec<Role>>,
}

impl<S> RoleService<S> {
    fn check<B>(&self, request: &Request<B>) -> Result<(), AuthError> {
        let Some(roles) = &self.roles else { return Ok(()) };
        let peer = request.extensions().get::<Peer>().and_then(|p| p.identity.as_ref());
        match peer {
            None => Err(AuthError::NoCertificate),
            Some(peer) if peer.has_any(roles) => Ok(()),
            Some(peer) => {
                tracing::warn!(
                    subject = peer.subject,
                    path = request.uri().path(),
                    "a certificate of the cluster called what its roles do not allow"
                );
                Err(AuthError::NoRole(roles.clone()))
            }
        }
    }
}

impl<S: NamedService> NamedService for RoleService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for RoleService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Boxed<Result<Response<R>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.check(&request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(error) => Box::pin(std::future::ready(Ok(status(&error).into_http()))),
        }
    }
}
