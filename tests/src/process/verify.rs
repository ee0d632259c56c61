//! The checks on what is left: store, DA layer, guard and record of signatures, and the clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton::cli::place::open_options;
use baton::home::Home;
use baton_actors::signer::FileGuard;
use baton_actors::signer::audit::{self, Event};
use baton_actors::signer::slot::{Verdict, judge};
use baton_messages::chain::{Block, DaHeaderEnvelope, SignedData};
use baton_messages::genesis::Genesis;
use baton_messages::types::{Hash, Height, Place, Timestamp};
use baton_storage::{Reader, Store};

use super::site::Site;
use crate::client::{Ack, Oracle};

/// How much was compared. A check that found nothing to compare shows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Blocks in the store.
    pub blocks: u64,
    /// Transactions in them.
    pub txs: usize,
    /// Transactions that were acknowledged, as *accepted* or more.
    pub acknowledged: usize,
    /// Signatures in the record.
    pub signed: usize,
    /// Blobs on DA, duplicates counted.
    pub blobs: usize,
    /// The time of every header, in order.
    pub times: Vec<Timestamp>,
}

/// Checks a site whose node has drained and stopped: heights have no gap, every acknowledged
/// transaction is in the chain exactly once, DA says the same as the store, at most one header
/// hash was ever signed per height, and the guard is not behind.
///
/// # Panics
///
/// When a promise is broken.
pub async fn verify(site: &Site) -> Found {
    let on_da = site.on_da().await;
    check_guard(&site.home);
    verify_all(std::slice::from_ref(&site.home), &site.genesis(), &site.oracle, &on_da)
}

/// Checks the homes of all members of a cluster that has drained and stopped, as [`verify`] does:
/// their blocks are the same at every height, and the records of their signers together hold one
/// header hash per height.
///
/// # Panics
///
/// When a promise is broken.
pub fn verify_all(homes: &[Home], genesis: &Genesis, oracle: &Oracle, on_da: &[Vec<Vec<u8>>; 2]) -> Found {
    let stores: Vec<Store> =
        homes.iter().map(|home| Store::open(open_options(home, genesis)).expect("the store opens")).collect();
    let mut longest: Option<(Reader, BTreeMap<Height, Arc<Block>>)> = None;
    for store in &stores {
        let reader = store.reader();
        let found = blocks(&reader);
        if let Some((_, known)) = &longest {
            for (height, block) in &found {
                let same = known.get(height).is_none_or(|other| other.hash() == block.hash());
                assert!(same, "P1: two blocks are committed at {height}");
            }
        }
        if longest.as_ref().is_none_or(|(_, known)| known.len() < found.len()) {
            longest = Some((reader, found));
        }
    }
    let (reader, blocks) = longest.expect("there is a home");
    let hashes: BTreeMap<Height, Hash> =
        blocks.iter().map(|(height, block)| (*height, block.hash())).collect();

    let mut places: BTreeMap<Hash, Vec<Place>> = BTreeMap::new();
    for (height, block) in &blocks {
        for (index, tx) in (0..).zip(block.txs()) {
            let place = Place { height: *height, index, header_hash: block.hash() };
            places.entry(tx.hash()).or_default().push(place);
        }
    }
    oracle.check(&places);
    let acknowledged = oracle.all().iter().filter(|(_, ack)| *ack != Ack::Unknown).count();

    check_refusals(homes);
    let signed = signed(homes);
    for (height, hash) in &signed {
        assert_eq!(
            hashes.get(height),
            Some(hash),
            "P2: a header was signed at {height} that is not committed"
        );
    }
    check_da(&reader, &blocks, on_da);
    let found = Found {
        blocks: blocks.len() as u64,
        txs: places.len(),
        acknowledged,
        signed: signed.len(),
        blobs: on_da.iter().map(Vec::len).sum(),
        times: blocks.values().map(|block| block.header().time).collect(),
    };
    for store in stores {
        store.close();
    }
    found
}

/// Every block up to the tip, linked to the one before.
fn blocks(reader: &Reader) -> BTreeMap<Height, Arc<Block>> {
    let mut blocks: BTreeMap<Height, Arc<Block>> = BTreeMap::new();
    for height in 1..=reader.tip().height.0 {
        let height = Height(height);
        let block = reader.block(height).expect("readable").expect("P1: heights have no gap");
        assert_eq!(block.height(), height);
        if let Some(parent) = blocks.get(&height.previous()) {
            assert_eq!(block.header().last_header_hash, parent.hash().to_bytes(), "I6: the parent is linked");
            assert!(block.header().time > parent.header().time, "I6: time rises");
        }
        blocks.insert(height, block);
    }
    blocks
}

/// The signer of an honest node refuses nothing.
fn check_refusals(homes: &[Home]) {
    for path in homes.iter().map(Home::audit).filter(|path| path.exists()) {
        for line in audit::read(&path).expect("the record can be read").0 {
            if let Event::Refused { reason, .. } = line.event {
                panic!("the signer refused an honest node: {reason}");
            }
        }
    }
}

/// What was ever signed, by the records of all lives of all homes together.
fn signed(homes: &[Home]) -> BTreeMap<Height, Hash> {
    let records = homes.iter().map(Home::audit).filter(|path| path.exists());
    let lines = records.flat_map(|path| audit::read(&path).expect("the record can be read").0);
    let mut signed = BTreeMap::new();
    for line in lines {
        match line.event {
            Event::Signed { height, hash, .. } => {
                let before = signed.insert(height, hash);
                assert!(
                    before.is_none_or(|before| before == hash),
                    "I1: two headers of height {height} signed"
                );
            }
            Event::Refused { .. }
            | Event::Noted { .. }
            | Event::GuardCreated { .. }
            | Event::GuardSet { .. }
            | Event::KeyImported { .. }
            | Event::KeyExported { .. } => {}
        }
    }
    signed
}

/// Checks that the guard is at or above everything that was ever signed. Holds at any moment,
/// also while the node lies dead.
///
/// # Panics
///
/// When it is behind, or nothing rules.
pub fn check_guard(home: &Home) {
    let slots = FileGuard::peek(&home.guard()).expect("the guard can be read");
    let Verdict::Rules { record, .. } = judge(&slots) else {
        panic!("no slot of the guard rules: {slots:?}")
    };
    if let Some((height, hash)) = signed(std::slice::from_ref(home)).last_key_value() {
        assert!(record.height >= *height, "P2: {height} is signed, the guard is at {}", record.height);
        assert!(
            record.height > *height || record.hash == *hash,
            "P2: the guard holds another header of {height}"
        );
    }
}

/// What DA holds is the chain, byte for byte where it holds something twice, and all of it up to
/// what was recorded as included.
fn check_da(reader: &Reader, blocks: &BTreeMap<Height, Arc<Block>>, on_da: &[Vec<Vec<u8>>; 2]) {
    let [headers, data] = on_da;
    let mut header_blobs: BTreeMap<Height, &[u8]> = BTreeMap::new();
    for blob in headers {
        let envelope = DaHeaderEnvelope::decode(blob).expect("only envelopes are in the headers' namespace");
        let header = &envelope.signed.header;
        let block = blocks.get(&header.height).expect("P10: DA holds no height that is not committed");
        assert_eq!(header.hash(), block.hash(), "P7: DA holds another header of {}", header.height);
        let before = header_blobs.insert(header.height, blob);
        assert!(before.is_none_or(|before| before == blob), "P7: two blobs of header {}", header.height);
    }
    let mut data_blobs: BTreeMap<Height, &[u8]> = BTreeMap::new();
    for blob in data {
        let signed = SignedData::decode(blob).expect("only signed data is in the data's namespace");
        let height = signed.data.metadata.as_ref().expect("data names its height").height;
        let block = blocks.get(&height).expect("P10: DA holds no height that is not committed");
        assert_eq!(signed.data, *block.data(), "P7: DA holds other data of {height}");
        let before = data_blobs.insert(height, blob);
        assert!(before.is_none_or(|before| before == blob), "P7: two blobs of data {height}");
    }
    let included = reader.da_progress().included;
    assert!(included > Height(0), "nothing was included");
    for (height, block) in blocks.range(..=included) {
        assert!(header_blobs.contains_key(height), "P7: header {height} is not on DA");
        assert_eq!(data_blobs.contains_key(height), !block.txs().is_empty(), "P7: data of {height} on DA");
    }
}
