//! ev-node's services in Connect JSON, Connect proto, gRPC and gRPC-Web.
//!
//! The protocols, their framing and compression are the library's; the messages are those of
//! the wire module. A call reads the store on a thread of its own, at most so many at once.

use std::sync::Arc;

use connectrpc::dispatcher::{
    RequestStream, StreamingResult, UnaryResult, unimplemented_streaming, unimplemented_unary,
};
use connectrpc::{
    CodecFormat, ConnectError, Dispatcher, EncodedBody, EncodedResponse, MethodDescriptor, Payload,
    RequestContext, Response,
};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use prost::Message;
use prost::bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tracing::{debug, error};

use super::service::Service;

/// The methods there are, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    GetBlock,
    GetState,
    GetMetadata,
    GetGenesisDaHeight,
    GetP2pStoreInfo,
    GetPeerInfo,
    GetNetInfo,
    GetNamespace,
    GetSignerInfo,
    Livez,
}

const METHODS: [(&str, Method); 10] = [
    ("evnode.v1.StoreService/GetBlock", Method::GetBlock),
    ("evnode.v1.StoreService/GetState", Method::GetState),
    ("evnode.v1.StoreService/GetMetadata", Method::GetMetadata),
    ("evnode.v1.StoreService/GetGenesisDaHeight", Method::GetGenesisDaHeight),
    ("evnode.v1.StoreService/GetP2PStoreInfo", Method::GetP2pStoreInfo),
    ("evnode.v1.P2PService/GetPeerInfo", Method::GetPeerInfo),
    ("evnode.v1.P2PService/GetNetInfo", Method::GetNetInfo),
    ("evnode.v1.ConfigService/GetNamespace", Method::GetNamespace),
    ("evnode.v1.ConfigService/GetSignerInfo", Method::GetSignerInfo),
    ("evnode.v1.HealthService/Livez", Method::Livez),
];

fn named(path: &str) -> Option<(&'static str, Method)> {
    METHODS.into_iter().find(|(name, _)| *name == path)
}

/// What is counted about calls.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    calls: Family<Call, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    method: String,
    code: String,
}

impl Metrics {
    /// Puts the handles into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("calls", "Calls answered, by method and Connect code", self.calls.clone());
    }

    fn count(&self, method: &str, code: &str) {
        let call = Call { method: method.to_owned(), code: code.to_owned() };
        self.calls.get_or_create(&call).inc();
    }
}

/// Finds the method of a path and calls it.
#[derive(Clone)]
pub(super) struct Services {
    service: Arc<Service>,
    reads: Arc<Semaphore>,
    metrics: Metrics,
}

impl Services {
    pub(super) fn new(service: Service, reads: usize, metrics: Metrics) -> Self {
        Self { service: Arc::new(service), reads: Arc::new(Semaphore::new(reads)), metrics }
    }

    async fn call(
        &self,
        method: Method,
        request: &Payload,
        format: CodecFormat,
    ) -> Result<Bytes, ConnectError> {
        let body = request.encoded()?;
        match method {
            Method::GetBlock => self.read(&body, format, Service::block).await,
            Method::GetMetadata => self.read(&body, format, Service::metadata).await,
            Method::GetGenesisDaHeight => self.read(&body, format, Service::genesis_da_height).await,
            Method::GetP2pStoreInfo => self.read(&body, format, Service::p2p_store_info).await,
            Method::GetState => {
                let engine = self.service.engine_position().await;
                self.read(&body, format, move |service, request| service.state(request, engine)).await
            }
            Method::GetPeerInfo => encode(&self.service.peers(decode(&body, format)?).await?, format),
            Method::GetNetInfo => encode(&self.service.net_info(decode(&body, format)?).await?, format),
            Method::GetNamespace => encode(&self.service.namespace(decode(&body, format)?), format),
            Method::GetSignerInfo => encode(&self.service.signer_info(decode(&body, format)?)?, format),
            Method::Livez => encode(&self.service.livez(decode(&body, format)?).await, format),
        }
    }

    /// Answers from the store, on a thread where a slow disk holds up nobody else.
    async fn read<Q, A>(
        &self,
        body: &[u8],
        format: CodecFormat,
        answer: impl FnOnce(&Service, Q) -> Result<A, ConnectError> + Send + 'static,
    ) -> Result<Bytes, ConnectError>
    where
        Q: Message + Default + DeserializeOwned + 'static,
        A: Message + Serialize,
    {
        let request = decode(body, format)?;
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        let permit = permit.map_err(|_| ConnectError::unavailable("the node is stopping"))?;
        let service = Arc::clone(&self.service);
        #[allow(clippy::disallowed_methods, reason = "the RPC server is no part of the simulation")]
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            encode(&answer(&service, request)?, format)
        });
        read.await.map_err(|failed| {
            error!(error = %failed, "a call ended in a panic");
            ConnectError::internal("the call failed, see the node's log")
        })?
    }
}

impl Dispatcher for Services {
    fn lookup(&self, path: &str) -> Option<MethodDescriptor> {
        named(path).map(|_| MethodDescriptor::unary(false))
    }

    fn call_unary(
        &self,
        path: &str,
        _: RequestContext,
        request: Payload,
        format: CodecFormat,
    ) -> UnaryResult {
        let Some((name, method)) = named(path) else { return unimplemented_unary(path) };
        let this = self.clone();
        Box::pin(async move {
            let answer = this.call(method, &request, format).await;
            this.metrics.count(name, answer.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok"));
            if let Err(error) = &answer {
                debug!(method = name, %error, "answered a call with an error");
            }
            let answer: EncodedResponse = Response::new(EncodedBody::from(answer?));
            Ok(answer)
        })
    }

    fn call_server_streaming(
        &self,
        path: &str,
        _: RequestContext,
        _: Bytes,
        _: CodecFormat,
    ) -> StreamingResult {
        unimplemented_streaming(path)
    }

    fn call_client_streaming(
        &self,
        path: &str,
        _: RequestContext,
        _: RequestStream,
        _: CodecFormat,
    ) -> UnaryResult {
        unimplemented_unary(path)
    }

    fn call_bidi_streaming(
        &self,
        path: &str,
        _: RequestContext,
        _: RequestStream,
        _: CodecFormat,
    ) -> StreamingResult {
        unimplemented_streaming(path)
    }
}

fn decode<Q: Message + Default + DeserializeOwned>(
    body: &[u8],
    format: CodecFormat,
) -> Result<Q, ConnectError> {
    let decoded = match format {
        // serde would take an array for a struct; protojson takes an object.
        CodecFormat::Json if !body.trim_ascii_start().starts_with(b"{") => {
            Err("not a JSON object".to_owned())
        }
        CodecFormat::Json => serde_json::from_slice(body).map_err(|error| error.to_string()),
        CodecFormat::Proto => Q::decode(body).map_err(|error| error.to_string()),
        other => Err(format!("{other:?} is not spoken here")),
    };
    decoded.map_err(|reason| ConnectError::invalid_argument(format!("unmarshal message: {reason}")))
}

fn encode<A: Message + Serialize>(answer: &A, format: CodecFormat) -> Result<Bytes, ConnectError> {
    match format {
        CodecFormat::Json => match serde_json::to_vec(answer) {
            Ok(json) => Ok(json.into()),
            Err(error) => Err(ConnectError::internal(format!("marshal message: {error}"))),
        },
        _ => Ok(answer.encode_to_vec().into()),
    }
}
