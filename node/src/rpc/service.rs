//! What ev-node's StoreService, P2PService and ConfigService answer (wire section 7.2).
//!
//! ev-node's quirks are kept, since its clients know them: a missing block is an internal error,
//! height zero is the newest block, the state leaves the last header hash out, DA heights
//! are known once a block is included.
//!
//! A light node has headers: a block of it has no data.
//!
//! A block is served with its signature only. The newest block is the newest *signed* one: the
//! signature of a block is recorded with the block after it, or soon after on its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Recipient;
use baton_messages::chain::{Signer, State};
use baton_messages::da::Namespace;
use baton_messages::engine::{EnginePosition, GetPosition};
use baton_messages::genesis::Genesis;
use baton_messages::p2p::{GetNetInfo, NetView, PeerView};
use baton_messages::types::{Hash, Height};
use baton_messages::wire::rpc::{
    Empty, GetBlockRequest, GetBlockResponse, GetGenesisDaHeightResponse, GetHealthResponse,
    GetMetadataRequest, GetMetadataResponse, GetNamespaceResponse, GetNetInfoResponse,
    GetP2pStoreInfoResponse, GetPeerInfoResponse, GetSignerInfoResponse, GetStateResponse, HealthStatus,
    Identifier, NetInfo, P2pStoreEntry, P2pStoreSnapshot, PeerInfo,
};
use baton_storage::Store;
use connectrpc::ConnectError;
use prost::bytes::Bytes;
use tracing::debug;

use super::health::Condition;
use super::index::Index;
use super::view::{View, retrieve};

/// For the engine's position; without it the state of the block before is answered.
const ENGINE_REPLIES_WITHIN: Duration = Duration::from_secs(1);
/// For the peer-to-peer actor's view.
const NETWORK_REPLIES_WITHIN: Duration = Duration::from_secs(2);

/// What the services know.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The store.
    pub store: Store,
    /// The genesis.
    pub genesis: Arc<Genesis>,
    /// Who signs the chain's headers; empty where the public key is not known.
    pub signer: Signer,
    /// DA namespace of headers.
    pub header_namespace: Namespace,
    /// DA namespace of data.
    pub data_namespace: Namespace,
    /// Says how far the engine is, for the newest state root. A witness and a light node have none.
    pub engine_position: Option<Recipient<GetPosition>>,
}

/// One end of what peers can be given.
type Entry = Result<Option<P2pStoreEntry>, ConnectError>;

/// Answers calls.
#[derive(Debug)]
pub(super) struct Service {
    chain: Chain,
    net_info: Option<Recipient<GetNetInfo>>,
    condition: Condition,
    index: Mutex<Index>,
}

impl Service {
    pub(super) fn new(chain: Chain, net_info: Option<Recipient<GetNetInfo>>, condition: Condition) -> Self {
        Self { chain, net_info, condition, index: Mutex::default() }
    }

    fn view(&self) -> View {
        let reader = self.chain.store.reader();
        // A node that follows learns the public key from the headers.
        let learnt = if self.chain.signer.pub_key.is_empty() { reader.follow() } else { None };
        let learnt = learnt.map(|follow| follow.signer).filter(|signer| !signer.pub_key.is_empty());
        View { reader, signer: learnt.unwrap_or_else(|| self.chain.signer.clone()) }
    }

    /// `GetBlock`.
    pub(super) fn block(&self, request: GetBlockRequest) -> Result<GetBlockResponse, ConnectError> {
        let view = self.view();
        let height = match request.identifier {
            Some(Identifier::Height(0)) => newest(&view)?,
            Some(Identifier::Height(height)) => Height(height),
            Some(Identifier::Hash(hash)) => self.height_of(&view, &hash)?,
            None => {
                return Err(ConnectError::invalid_argument(
                    "invalid or unsupported identifier type provided",
                ));
            }
        };
        let block = view.block(height)?;
        let is_here = block.is_some() || (view.is_headers_only() && view.header(height)?.is_some());
        if !is_here {
            return Err(retrieve(format!("no block at height {height}")));
        }
        let signed = view.signed_header(height)?;
        let signed =
            signed.ok_or_else(|| retrieve(format!("the block at height {height} is not signed yet")))?;
        let Some(block) = block else { return Ok(GetBlockResponse::of_header(&signed)) };
        let (of_header, of_data) = view.da_heights(height)?;
        Ok(GetBlockResponse::of(&signed, block.data(), of_header, of_data))
    }

    fn height_of(&self, view: &View, hash: &[u8]) -> Result<Height, ConnectError> {
        let bytes =
            hash.try_into().map_err(|_| retrieve(format!("a hash has 32 bytes, not {}", hash.len())))?;
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let found = view.height_of(Hash(bytes), &mut index)?;
        found.ok_or_else(|| retrieve(format!("no block with hash {}", hex::encode(hash))))
    }

    /// `GetState`: after the newest block if the engine has executed it, else after the one
    /// before, whose root is in the newest block's header.
    pub(super) fn state(
        &self,
        _: Empty,
        engine: Option<EnginePosition>,
    ) -> Result<GetStateResponse, ConnectError> {
        let view = self.view();
        let genesis = &self.chain.genesis;
        let tip = view.tip();
        let newest = view.header(tip.height)?.ok_or_else(|| ConnectError::not_found("no blocks yet"))?;
        let executed = engine.filter(|engine| engine.height == tip.height);
        let executed = executed.filter(|engine| engine.hash.is_none_or(|hash| hash == tip.hash));
        let version = newest.version;
        let (last, app_hash) = match executed {
            Some(engine) => (Some(newest), engine.root.0),
            None => (view.header(tip.height.previous())?, newest.app_hash),
        };
        let state = State {
            version,
            chain_id: genesis.chain_id.clone(),
            initial_height: genesis.initial_height,
            last_block_height: last.as_ref().map_or(genesis.initial_height.previous(), |last| last.height),
            last_block_time: Some(last.map_or(genesis.start_time, |last| last.time)),
            da_height: view.reader.forced().da_height.max(genesis.da_start_height).0,
            app_hash,
            last_header_hash: Bytes::new(),
            next_proposer_address: genesis.proposer_address.clone(),
        };
        Ok(GetStateResponse::of(&state))
    }

    /// How far the engine is, when it says so in time.
    pub(super) async fn engine_position(&self) -> Option<EnginePosition> {
        let asked =
            self.chain.engine_position.as_ref()?.send(GetPosition).timeout(ENGINE_REPLIES_WITHIN).await;
        match asked {
            Ok(Ok(position)) => Some(position),
            Ok(Err(error)) => {
                debug!(%error, "the engine does not say how far it is");
                None
            }
            Err(error) => {
                debug!(%error, "the engine does not answer");
                None
            }
        }
    }

    /// `GetMetadata`.
    pub(super) fn metadata(&self, request: GetMetadataRequest) -> Result<GetMetadataResponse, ConnectError> {
        let value = self.metadata_value(&request.key)?;
        let value = value.ok_or_else(|| no_metadata(&request.key))?;
        Ok(GetMetadataResponse { value: Bytes::copy_from_slice(&value.to_le_bytes()) })
    }

    fn metadata_value(&self, key: &str) -> Result<Option<u64>, ConnectError> {
        let view = self.view();
        let progress = view.da_progress();
        let known = |height: Height| Some(height.0).filter(|height| *height > 0);
        match (key, inclusion_key(key)) {
            ("d", _) => Ok(known(progress.included)),
            ("last-submitted-header-height", _) => Ok(known(progress.headers)),
            ("last-submitted-data-height", _) => Ok(known(progress.data)),
            ("gdh", _) => self.genesis_da(&view),
            (_, Some((height, Part::Header))) => Ok(view.da_heights(height)?.0.map(|height| height.0)),
            (_, Some((height, Part::Data))) => Ok(view.da_heights(height)?.1.map(|height| height.0)),
            (_, None) => Ok(None),
        }
    }

    /// `GetGenesisDaHeight`: known once the first block is included.
    pub(super) fn genesis_da_height(&self, _: Empty) -> Result<GetGenesisDaHeightResponse, ConnectError> {
        let height = self.genesis_da(&self.view())?.ok_or_else(|| no_metadata("gdh"))?;
        Ok(GetGenesisDaHeightResponse { height })
    }

    fn genesis_da(&self, view: &View) -> Result<Option<u64>, ConnectError> {
        let (header, data) = view.da_heights(self.chain.genesis.initial_height)?;
        Ok(header.into_iter().chain(data).min().map(|height| height.0))
    }

    /// `GetP2PStoreInfo`: the headers and data this node can give to peers. A light node has no store
    /// of data, as in ev-node.
    pub(super) fn p2p_store_info(&self, _: Empty) -> Result<GetP2pStoreInfoResponse, ConnectError> {
        let view = self.view();
        let store = |label: &str, newest: Option<Height>, entry: &dyn Fn(Height) -> Entry| {
            let (head, tail) = match newest {
                Some(newest) => (entry(newest)?, entry(self.chain.genesis.initial_height)?),
                None => (None, None),
            };
            let height = head.as_ref().and(newest).unwrap_or_default().0;
            Ok::<_, ConnectError>(P2pStoreSnapshot { label: label.to_owned(), height, head, tail })
        };
        let header = |height| {
            let header = view.header(height)?;
            Ok(header.map(|header| P2pStoreEntry::of(height, header.hash(), header.time)))
        };
        let data = |height| {
            let block = view.block(height)?;
            Ok(block.map(|block| P2pStoreEntry::of(height, block.data().hash(), block.header().time)))
        };
        let newest = view.newest_signed()?;
        let mut stores = vec![store("Header Store", newest, &header)?];
        if !view.is_headers_only() {
            stores.push(store("Data Store", newest, &data)?);
        }
        Ok(GetP2pStoreInfoResponse { stores })
    }

    async fn network(&self) -> Result<NetView, ConnectError> {
        let Some(net_info) = &self.net_info else {
            return Err(ConnectError::unavailable("p2p is off: p2p.listen_address is empty"));
        };
        let asked = net_info.send(GetNetInfo).timeout(NETWORK_REPLIES_WITHIN).await;
        asked.map_err(|error| ConnectError::unavailable(format!("no reply from the network: {error}")))
    }

    /// `GetPeerInfo`.
    pub(super) async fn peers(&self, _: Empty) -> Result<GetPeerInfoResponse, ConnectError> {
        let info = |peer: PeerView| {
            // Go's text of such a pair.
            let address = format!("{{{}: [{}]}}", peer.id, peer.addresses.join(" "));
            PeerInfo { id: peer.id.to_string(), address }
        };
        Ok(GetPeerInfoResponse { peers: self.network().await?.peers.into_iter().map(info).collect() })
    }

    /// `GetNetInfo`. ev-node leaves the connected peers out.
    pub(super) async fn net_info(&self, _: Empty) -> Result<GetNetInfoResponse, ConnectError> {
        let NetView { id, listen_addresses, peers, .. } = self.network().await?;
        let connected_peers = peers.into_iter().map(|peer| peer.id.to_string()).collect();
        Ok(GetNetInfoResponse { net_info: Some(NetInfo { id, listen_addresses, connected_peers }) })
    }

    /// `GetNamespace`.
    pub(super) fn namespace(&self, _: Empty) -> GetNamespaceResponse {
        GetNamespaceResponse::of(self.chain.header_namespace, self.chain.data_namespace)
    }

    /// `Livez`: what `/health/live` says. ev-node has had no such service since v1.2, and its client on
    /// crates.io still asks for it.
    pub(super) async fn livez(&self, _: Empty) -> GetHealthResponse {
        let alive = self.condition.ask().await.is_some();
        GetHealthResponse::of(if alive { HealthStatus::Pass } else { HealthStatus::Fail })
    }

    /// `GetSignerInfo`: the genesis' proposer.
    pub(super) fn signer_info(&self, _: Empty) -> Result<GetSignerInfoResponse, ConnectError> {
        let address = self.chain.genesis.proposer_address.clone();
        if address.is_empty() {
            return Err(ConnectError::unavailable("sequencer signer not available"));
        }
        Ok(GetSignerInfoResponse { address })
    }
}

fn newest(view: &View) -> Result<Height, ConnectError> {
    let newest = view.newest_signed()?;
    newest.ok_or_else(|| match view.tip().height.0 {
        0 => ConnectError::not_found("store is empty, no latest block available"),
        _ => ConnectError::not_found("no block is signed yet"),
    })
}

fn no_metadata(key: &str) -> ConnectError {
    // Errors travel in headers: what strangers send is not repeated at length.
    let shown: String = key.chars().take(64).collect();
    ConnectError::not_found(format!("no metadata {shown:?}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    Data,
}

/// Takes `rhb/<height>/h` and `rhb/<height>/d` apart.
fn inclusion_key(key: &str) -> Option<(Height, Part)> {
    let (height, part) = key.strip_prefix("rhb/")?.split_once('/')?;
    let part = match part {
        "h" => Part::Header,
        "d" => Part::Data,
        _ => return None,
    };
    let number: u64 = height.parse().ok()?;
    (number.to_string() == height).then_some((Height(number), part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_inclusion_keys_are_known() {
        assert_eq!(inclusion_key("rhb/7/h"), Some((Height(7), Part::Header)));
        assert_eq!(inclusion_key("rhb/18446744073709551615/d"), Some((Height(u64::MAX), Part::Data)));
        for key in
            ["rhb/07/h", "rhb/+7/h", "rhb/7/x", "rhb/7", "rhb//h", "rhb/18446744073709551616/d", "d/7/h"]
        {
            assert_eq!(inclusion_key(key), None, "{key}");
        }
    }
}
