//! What a running ev-node gossiped and gave on request (`docs/interop.md`): blocks 1 to 4 by
//! exchange, four later ones by gossip, one of them with transactions.

use std::sync::LazyLock;

use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::types::{Height, Timestamp};
use serde_json::Value;

use crate::bytes;

static FILE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("evnode-live.json")).unwrap());

/// Long after they were made.
const NOW: Timestamp = Timestamp(1 << 62);

fn recorded(way: &str) -> Vec<(P2pSignedHeader, P2pData)> {
    let all = |service: &str| FILE[way][service].as_array().unwrap().iter().map(bytes).collect::<Vec<_>>();
    let headers = all("headers").into_iter().map(|bytes| {
        let header = P2pSignedHeader::decode(&bytes).unwrap();
        assert_eq!(header.encode(), bytes, "it is encoded as ev-node does");
        header
    });
    let data = all("data").into_iter().map(|bytes| {
        let data = P2pData::decode(&bytes).unwrap();
        assert_eq!(data.encode(), bytes, "it is encoded as ev-node does");
        data
    });
    headers.zip(data).collect()
}

fn check(blocks: &[(P2pSignedHeader, P2pData)]) {
    for (header, data) in blocks {
        let signed = &header.signed;
        assert_eq!(signed.header.chain_id, FILE["chain_id"].as_str().unwrap());
        signed.validate(NOW).unwrap();
        data.data.validate(NOW).unwrap();
        signed.header.validate_data(&data.data).unwrap();
    }
    for pair in blocks.windows(2) {
        let [(before, data_before), (after, data_after)] = pair else { unreachable!("windows of two") };
        assert_eq!(after.signed.header.height, before.signed.header.height.next());
        after.signed.header.verify_after(&before.signed.header, NOW).unwrap();
        data_after.data.verify_after(&data_before.data, NOW).unwrap();
    }
}

#[test]
fn what_ev_node_gives_on_request_is_read_checked_and_written_again() {
    let blocks = recorded("exchange");
    assert_eq!(blocks.len(), 4);
    assert_eq!(blocks[0].0.signed.header.height, Height(1));
    check(&blocks);
}

#[test]
fn what_ev_node_gossips_is_read_checked_and_written_again() {
    let blocks = recorded("gossip");
    assert_eq!(blocks.len(), 4);
    assert!(blocks.iter().any(|(_, data)| !data.data.txs.is_empty()));
    assert!(blocks.iter().all(|(header, data)| header.da_height_hint == 0 && data.da_height_hint == 0));
    check(&blocks);
}
