//! Whole messages of the vectors: decoded, encoded, hashed.

use baton_messages::chain::*;
use baton_messages::codec;
use serde_json::Value;

#[test]
fn the_vectors_of_whole_messages_decode_and_encode_to_themselves() {
    let all: Value = serde_json::from_str(include_str!("vectors/evnode-vectors.json")).unwrap();
    let get = |id: &str, key: &str| {
        let entry = all["vectors"].as_array().unwrap().iter().find(|v| v["id"] == id).unwrap();
        hex::decode(entry["outputs"][key].as_str().unwrap()).unwrap()
    };
    for id in [
        "header-block-1",
        "header-block-2",
        "header-minimal",
        "header-zero",
        "header-legacy-full",
        "header-legacy-consensus-only",
    ] {
        let bytes = get(id, "header_proto");
        let header = Header::decode(&bytes).unwrap();
        assert_eq!(header.encode(), bytes);
        assert_eq!(header.hash().0.to_vec(), get(id, "header_hash"), "{id}");
        let block = Block::new(header, Data::default());
        assert_eq!(codec::decode::<Block>(&codec::encode(&block)).unwrap(), block);
    }
    for n in ["1", "2"] {
        let id = format!("data-block-{n}");
        let data = Data::decode(&get(&id, "data_proto")).unwrap();
        assert_eq!(data.hash().0.to_vec(), get(&id, "data_hash"));
        assert_eq!(data.commitment().0.to_vec(), get(&id, "da_commitment"));
        assert_eq!(data.encode(), get(&id, "data_proto"));
        let bytes = get(&format!("da-header-blob-block-{n}"), "blob");
        assert_eq!(DaHeaderEnvelope::decode(&bytes).unwrap().encode(), bytes);
    }
    let bytes = get("da-data-blob-block-2", "blob");
    assert_eq!(SignedData::decode(&bytes).unwrap().encode(), bytes);
    let bytes = get("state-zero", "state_proto");
    assert_eq!(State::decode(&bytes).unwrap().encode(), bytes);
    assert_eq!(State::default().encode(), bytes);
}
