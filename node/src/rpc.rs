//! The node's HTTP side: ev-node's RPC services, health, condition and metrics on one port.
//!
//! HTTP/1.1 and h2c; every route is in `docs/http.md`. It answers in every role, without a
//! quorum, and when the store is in trouble: then calls that need the store get an error, and
//! health says why (P8).

mod connect;
mod health;
mod index;
pub mod serve;
mod service;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::Recipient;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use baton_messages::p2p::GetNetInfo;
use connectrpc::{CompressionPolicy, ConnectError, ConnectRpcService, DeadlinePolicy, Protocol};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tower_http::timeout::TimeoutLayer;

pub use health::{Condition, Report, unready};
pub use serve::{BindError, Limits};
pub use service::Chain;

use crate::admin;
use crate::body::{Budget, Unread};
use crate::metrics;

/// Answers from this size on are compressed for those who ask, as ev-node does.
const COMPRESS_FROM: usize = 1024;

/// What is counted about the HTTP side.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    connections: serve::Metrics,
    calls: connect::Metrics,
}

impl Metrics {
    /// What the listener counts.
    #[must_use]
    pub fn connections(&self) -> serve::Metrics {
        self.connections.clone()
    }

    /// Puts the handles into a registry, with the prefix `rpc`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("rpc");
        self.connections.register(registry);
        self.calls.register(registry);
    }
}

/// Everything the server answers from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The operator's name for this node: `node_id` of `/raft/node`.
    pub node: String,
    /// The chain.
    pub chain: Chain,
    /// The node's condition.
    pub condition: Condition,
    /// What `/metrics` answers.
    pub metrics: metrics::Metrics,
    /// Where the server itself counts; registered before.
    pub counters: Metrics,
    /// Limits.
    pub limits: Limits,
    /// Says who is connected; `None` where the peer-to-peer network is off.
    pub net_info: Option<Recipient<GetNetInfo>>,
}

/// The HTTP server, bound and not yet answering.
pub struct Server {
    listener: serve::Listener,
    router: Router,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds `host:port` for all routes; port zero takes a free one.
    ///
    /// # Errors
    ///
    /// `BindError` when the address is taken or cannot be bound.
    pub async fn bind(address: &str, parts: Parts) -> Result<Self, BindError> {
        let listener =
            serve::Listener::bind(address, parts.limits, parts.counters.connections.clone()).await?;
        Ok(Self::on(listener, parts))
    }

    /// Serves all routes on an address that was bound before.
    #[must_use]
    pub fn on(listener: serve::Listener, parts: Parts) -> Self {
        Self { listener, router: router(parts) }
    }

    /// Binds `host:port` for `/metrics` alone (`instrumentation.prometheus_listen_addr`; an address
    /// like `:26660` is all interfaces, as in ev-node). Nothing is answered yet.
    ///
    /// # Errors
    ///
    /// `BindError` when the address is taken or cannot be bound.
    pub async fn listen_for_metrics(
        address: &str,
        limits: Limits,
        counters: serve::Metrics,
    ) -> Result<serve::Listener, BindError> {
        let address = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
        serve::Listener::bind(&address, limits, counters).await
    }

    /// Serves `/metrics` alone on an address that was bound before.
    #[must_use]
    pub fn for_metrics(listener: serve::Listener, metrics: metrics::Metrics, limits: Limits) -> Self {
        Self { listener, router: plain(metrics.router(), limits) }
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Answers until `shutdown` completes; then requests under way may end for a while.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        self.listener.serve(self.router, shutdown).await;
    }
}

/// What the plain routes answer from.
#[derive(Clone)]
struct Plain {
    node: Arc<str>,
    chain_id: Arc<str>,
    condition: Condition,
}

/// All routes, without the connection's limits.
fn router(parts: Parts) -> Router {
    let Parts { node, chain, condition, metrics, counters, limits, net_info } = parts;
    let services = services(chain.clone(), net_info, condition.clone(), counters.calls, limits);
    let state = Plain { node: node.into(), chain_id: chain.genesis.chain_id.as_str().into(), condition };
    let routes = Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/health/leader", get(is_leader))
        .route("/raft/node", get(raft_node))
        .route("/status", get(status))
        .with_state(state)
        .merge(metrics.router());
    plain(routes, limits).merge(services)
}

/// Routes that take no body: other methods and paths are told so, and none takes for ever.
fn plain(routes: Router, limits: Limits) -> Router {
    routes
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"))
        .fallback(unknown)
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limits.request))
}

/// There is nothing here, in words that a gRPC client understands if it is one.
async fn unknown(request: Request) -> Response {
    match Protocol::detect(request.headers()) {
        Some(call) if call.protocol != Protocol::Connect => {
            let error = ConnectError::unimplemented(format!("no method {}", request.uri().path()));
            error.into_http_response(request.headers()).map(Body::new)
        }
        _ => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}

/// ev-node's services. The library bounds the body, what it unpacks to, and the time for both
/// the body and the answer.
fn services(
    chain: Chain,
    net_info: Option<Recipient<GetNetInfo>>,
    condition: Condition,
    metrics: connect::Metrics,
    limits: Limits,
) -> Router {
    let service = service::Service::new(chain, net_info, condition);
    let dispatcher = connect::Services::new(service, limits.reads, metrics);
    let bounds = connectrpc::Limits::default()
        .with_max_request_body_size(limits.body)
        .with_max_message_size(limits.body);
    let deadline = DeadlinePolicy::new().with_default_timeout(limits.request).with_max(limits.request);
    let service = ConnectRpcService::new(dispatcher)
        .with_limits(bounds)
        .with_deadline_policy(deadline)
        .with_compression_policy(CompressionPolicy::default().with_min_size(COMPRESS_FROM));
    let door =
        Door { bodies: Budget::new(limits.bodies), places: Arc::new(Semaphore::new(limits.calls)), limits };
    let mut routes = Router::new();
    for name in ["StoreService", "P2PService", "ConfigService", "HealthService"] {
        routes = routes.route_service(&format!("/evnode.v1.{name}/{{method}}"), service.clone());
    }
    routes.layer(middleware::from_fn_with_state(door, bounded))
}

/// What a call must pass.
#[derive(Clone)]
struct Door {
    bodies: Budget,
    places: Arc<Semaphore>,
    limits: Limits,
}

/// Reads the whole call, then turns it away while too many are being worked on. A place is
/// taken for a call that is there: one that trickles in holds up nobody.
async fn bounded(State(door): State<Door>, request: Request, next: Next) -> Response {
    let Limits { body: limit, request: within, .. } = door.limits;
    let (head, body) = request.into_parts();
    let refused = match door.bodies.read(body, limit, within).await {
        Ok((body, _held)) => match door.places.try_acquire() {
            Ok(_place) => return next.run(Request::from_parts(head, Body::from(body))).await,
            Err(_) => ConnectError::unavailable("too many calls at once"),
        },
        Err(error @ Unread::Broken) => ConnectError::invalid_argument(error.to_string()),
        Err(error @ Unread::TooLarge(_)) => ConnectError::resource_exhausted(error.to_string()),
        Err(error @ Unread::TooSlow(_)) => ConnectError::deadline_exceeded(error.to_string()),
        Err(error @ Unread::NoRoom(_)) => ConnectError::unavailable(error.to_string()),
    };
    refused.into_http_response(&head.headers).map(Body::new)
}

/// Whether the process works: its actors answer. It stays true while the store or the quorum is
/// away, since a restart would help with neither (P8).
async fn live(State(plain): State<Plain>) -> Response {
    match plain.condition.ask().await {
        Some(_) => (StatusCode::OK, "OK\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "FAIL\n").into_response(),
    }
}

/// Whether the node does its part.
async fn ready(State(plain): State<Plain>) -> Response {
    let Report { reasons, .. } = plain.report().await;
    if reasons.is_empty() {
        return (StatusCode::OK, "READY\n").into_response();
    }
    let one_line = reasons.join("; ").replace(['\r', '\n'], " ");
    (StatusCode::SERVICE_UNAVAILABLE, format!("UNREADY: {one_line}\n")).into_response()
}

/// Whether clients should talk to this node if they want the leader; who else, if not.
async fn is_leader(State(plain): State<Plain>) -> Response {
    let Report { status, .. } = plain.report().await;
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(leader) = admin::status::leader(&status) {
        let told = [
            ("baton-leader", leader.name),
            ("baton-leader-rpc", leader.rpc),
            ("baton-leader-intake", leader.intake),
            ("baton-term", leader.term.to_string()),
        ];
        for (name, value) in told.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
    match health::not_leading(&status) {
        None => (StatusCode::OK, headers, "LEADER\n").into_response(),
        Some(why) => {
            let one_line = why.replace(['\r', '\n'], " ");
            (StatusCode::SERVICE_UNAVAILABLE, headers, format!("NOT LEADER: {one_line}\n")).into_response()
        }
    }
}

async fn raft_node(State(plain): State<Plain>) -> Response {
    let Report { status, reasons } = plain.report().await;
    Json(health::raft_node(&plain.node, &status, &reasons)).into_response()
}

async fn status(State(plain): State<Plain>) -> Response {
    let Report { status, reasons } = plain.report().await;
    let fresh = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ([fresh], Json(health::status(&plain.chain_id, &plain.node, &status, &reasons))).into_response()
}

impl Plain {
    /// The condition, also when nobody knows it.
    async fn report(&self) -> Report {
        self.condition.ask().await.unwrap_or_else(|| Report {
            reasons: vec!["the node's actors do not answer".to_owned()],
            ..Report::default()
        })
    }
}
