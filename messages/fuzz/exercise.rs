//! What every input goes through, in the fuzz targets and in the tests (`tests/properties`):
//! nothing panics, and whatever decodes is the same after encoding and decoding it again.

use std::fmt::Debug;

use baton_messages::chain::{
    Block, DaHeaderEnvelope, Data, Header, P2pData, P2pSignedHeader, SignedData, SignedHeader, State,
};
use baton_messages::codec;
use baton_messages::command::{BlockEntry, Command, DaProgress, Verdict};
use baton_messages::da::{Namespace, blob_commitment};
use baton_messages::engine::TxResult;
use baton_messages::genesis::Genesis;
use baton_messages::types::{Member, Place, StateRoot, Timestamp, Tip, Tx};
use baton_messages::wire::WireError;
use baton_messages::wire::exchange::{Framed, HeaderRequest, HeaderResponse, split_frame};
use baton_messages::wire::keys::PublicKey;
use baton_messages::wire::records::{Batch, RaftBlockState};
use baton_messages::wire::rpc::{
    GetBlockRequest, GetBlockResponse, GetMetadataRequest, GetNetInfoResponse, GetP2pStoreInfoResponse,
    GetPeerInfoResponse, GetStateResponse,
};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Some clock; validation must not panic whatever it says.
const NOW: Timestamp = Timestamp(1_735_787_045_123_456_789);

fn again<T: PartialEq + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, WireError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = decode(bytes).ok()?;
    let encoded = encode(&value);
    let decoded = decode(&encoded).expect("what was encoded decodes");
    assert_eq!(decoded, value);
    assert_eq!(encode(&decoded), encoded);
    Some(value)
}

fn protobuf<T: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = T::decode(bytes) {
        let decoded = T::decode(value.encode_to_vec().as_slice()).expect("what was encoded decodes");
        assert_eq!(decoded, value);
    }
}

/// ev-node's protobuf, frames and keys, and the rules that decoded values are held against.
pub fn wire(bytes: &[u8]) {
    if let Some(header) = again(bytes, Header::decode, Header::encode) {
        let _ = (header.hash(), header.signature_payloads(), header.validate(NOW));
        let _ = header.verify_after(&Header::default(), NOW);
        let _ = State::default().validate_next(&header);
        let _ = State::default().after(
            &Block::new(header, Data::default()),
            &StateRoot::default(),
            &Default::default(),
        );
    }
    if let Some(signed) = again(bytes, SignedHeader::decode, SignedHeader::encode) {
        let _ = signed.validate(NOW);
    }
    if let Some(envelope) = again(bytes, DaHeaderEnvelope::decode, DaHeaderEnvelope::encode) {
        let _ = (envelope.verify(false), envelope.verify(true));
    }
    if let Some(data) = again(bytes, Data::decode, Data::encode) {
        let _ =
            (data.hash(), data.commitment(), data.validate(NOW), data.verify_after(&Data::default(), NOW));
    }
    if let Some(signed) = again(bytes, SignedData::decode, SignedData::encode) {
        let _ = signed.verify();
    }
    again(bytes, P2pSignedHeader::decode, P2pSignedHeader::encode);
    again(bytes, P2pData::decode, P2pData::encode);
    again(bytes, State::decode, State::encode);
    again(bytes, HeaderRequest::decode, HeaderRequest::encode);
    again(bytes, HeaderResponse::decode, HeaderResponse::encode);
    if let Ok(Some(Framed { message, rest })) = split_frame(bytes) {
        assert!(message.len() + rest.len() < bytes.len());
    }
    let _ = PublicKey::parse(bytes).map(|key| key.verify(b"payload", bytes));
    let _ = blob_commitment(&Namespace::of("fuzz"), bytes);
    protobuf::<RaftBlockState>(bytes);
    protobuf::<Batch>(bytes);
    protobuf::<GetBlockRequest>(bytes);
    protobuf::<GetBlockResponse>(bytes);
    protobuf::<GetStateResponse>(bytes);
    protobuf::<GetP2pStoreInfoResponse>(bytes);
}

/// What comes on a stream of the header exchange: frames with questions, or with answers whose
/// items come after one another.
pub fn exchange(bytes: &[u8]) {
    let mut left = bytes;
    let (mut header, mut data) = (None::<P2pSignedHeader>, None::<P2pData>);
    while let Ok(Some(Framed { message, rest })) = split_frame(left) {
        assert!(rest.len() < left.len(), "a stream is read to its end");
        left = rest;
        if let Some(request) = again(message, HeaderRequest::decode, HeaderRequest::encode) {
            let frame = request.to_frame();
            let framed = split_frame(&frame).expect("it was framed here").expect("it is whole");
            assert_eq!((HeaderRequest::decode(framed.message), framed.rest.len()), (Ok(request), 0));
        }
        let Some(response) = again(message, HeaderResponse::decode, HeaderResponse::encode) else { continue };
        if let Some(item) = again(&response.body, P2pSignedHeader::decode, P2pSignedHeader::encode) {
            let after = header.as_ref().map(|before| &before.signed.header);
            let _ = after.map(|before| item.signed.header.verify_after(before, NOW));
            let _ = item.signed.header.validate(NOW);
            header = Some(item);
        }
        if let Some(item) = again(&response.body, P2pData::decode, P2pData::encode) {
            let _ = data.as_ref().map(|before| item.data.verify_after(&before.data, NOW));
            let _ = item.data.validate(NOW);
            data = Some(item);
        }
    }
}

/// What is gossiped of one block: two bytes with the length of the header, the header, the data.
pub fn gossip(bytes: &[u8]) {
    let Some((length, both)) = bytes.split_first_chunk::<2>() else { return };
    let (header, data) = both.split_at(both.len().min(u16::from_le_bytes(*length).into()));
    let header = again(header, P2pSignedHeader::decode, P2pSignedHeader::encode);
    let data = again(data, P2pData::decode, P2pData::encode);
    if let Some(header) = &header {
        let _ = (header.signed.validate(NOW), header.signed.verify_signature(), header.signed.header.hash());
    }
    if let Some(data) = &data {
        let _ = (data.data.validate(NOW), data.data.hash(), data.data.commitment());
    }
    if let (Some(header), Some(data)) = (header, data) {
        let _ = header.signed.header.validate_data(&data.data);
    }
}

fn coded<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = codec::decode::<T>(bytes) {
        assert_eq!(codec::decode(&codec::encode(&value)), Ok(value));
    }
}

/// What the cluster and the store read.
pub fn codec(bytes: &[u8]) {
    if let Ok(block) = codec::decode::<Block>(bytes) {
        assert_eq!(block.hash(), block.header().hash(), "a hash is computed, never read");
    }
    coded::<Block>(bytes);
    coded::<Command>(bytes);
    coded::<BlockEntry>(bytes);
    coded::<Verdict>(bytes);
    coded::<DaProgress>(bytes);
    coded::<Tip>(bytes);
    coded::<Member>(bytes);
    coded::<Place>(bytes);
    coded::<Genesis>(bytes);
    coded::<State>(bytes);
    coded::<SignedHeader>(bytes);
    coded::<SignedData>(bytes);
    coded::<DaHeaderEnvelope>(bytes);
    coded::<TxResult>(bytes);
    coded::<Vec<Tx>>(bytes);
}

fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &str) {
    let Ok(value) = serde_json::from_str::<T>(text) else { return };
    // Times outside of what RFC 3339 can say have no JSON.
    if let Ok(written) = serde_json::to_string(&value) {
        assert_eq!(serde_json::from_str::<T>(&written).expect("what was written is read"), value);
    }
}

/// What people and RPC clients write.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(genesis) = Genesis::from_json(text) {
        let written = genesis.to_json().expect("a valid genesis is written");
        assert_eq!(Genesis::from_json(&written), Ok(genesis));
    }
    let _ = Namespace::from_base64(text);
    json::<GetBlockRequest>(text);
    json::<GetBlockResponse>(text);
    json::<GetStateResponse>(text);
    json::<GetMetadataRequest>(text);
    json::<GetP2pStoreInfoResponse>(text);
    json::<GetPeerInfoResponse>(text);
    json::<GetNetInfoResponse>(text);
}
