//! A DA layer in memory: strict about what the protocol forbids, and it can be away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use baton_actors::da::{DaLayer, Proof};
use baton_messages::chain::{DaHeaderEnvelope, SignedData};
use baton_messages::da::{Blob, DaError, DaHead, Namespace};
use baton_messages::types::{DaHeight, Hash, Height, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

use crate::power::Power;

/// A header that came onto DA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: Hash,
    /// The storage of the machine that posted it; nil: nobody said.
    pub poster: Uuid,
}

#[derive(Debug)]
struct Later {
    at: Instant,
    number: u64,
    poster: Uuid,
    blobs: Vec<Blob>,
}

#[derive(Debug, Default)]
struct Inner {
    blocks: Vec<Vec<Blob>>,
    headers: BTreeMap<Height, Hash>,
    /// Every header in the order of arrival, duplicates included.
    posted: Vec<Posted>,
    /// What lies there for a height, whole: whoever posts it again posts the same bytes.
    bytes: BTreeMap<(Namespace, Height), Hash>,
    /// Taken, but in no block yet.
    later: Vec<Later>,
    /// The block of everything that was taken, by the number it was given.
    included: BTreeMap<u64, DaHeight>,
    taken: u64,
    away: bool,
    slow: Duration,
    late: Duration,
    false_error: bool,
    false_errors: u64,
}

impl Inner {
    /// Makes blocks of what is due.
    fn settle(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|later| later.at <= now);
        self.later = later;
        let due: Vec<Later> = due;
        for Later { number, poster, blobs, .. } in due {
            self.include(number, poster, blobs);
        }
    }

    fn include(&mut self, number: u64, poster: Uuid, blobs: Vec<Blob>) {
        for blob in &blobs {
            self.look(poster, blob);
        }
        self.blocks.push(blobs);
        self.included.insert(number, DaHeight(self.blocks.len() as u64));
    }

    /// I7: one header per height, and the same bytes whoever posts them.
    fn look(&mut self, poster: Uuid, blob: &Blob) {
        assert!(!blob.data.is_empty(), "an empty blob was submitted");
        let height = match DaHeaderEnvelope::decode(&blob.data) {
            Ok(envelope) if !envelope.envelope_signature.is_empty() => {
                let header = &envelope.signed.header;
                let (height, hash) = (header.height, header.hash());
                self.posted.push(Posted { height, hash, poster });
                let before = self.headers.insert(height, hash);
                assert!(
                    before.is_none_or(|before| before == hash),
                    "P7: two headers of height {height} on DA"
                );
                Some(height)
            }
            _ => {
                let signed = SignedData::decode(&blob.data).ok();
                signed.and_then(|signed| signed.data.metadata.map(|metadata| metadata.height))
            }
        };
        if let Some(height) = height {
            let hash = Hash::of(&blob.data);
            let before = self.bytes.insert((blob.namespace, height), hash);
            assert!(before.is_none_or(|before| before == hash), "I7: other bytes of height {height} on DA");
        }
    }
}

/// What is on DA. It outlives every node.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Inner>>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the layer answers.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Every request takes so much longer.
    pub fn set_slow(&self, more: Duration) {
        self.lock().slow = more;
    }

    /// What is submitted is in a block so much later, whoever still waits for it.
    pub fn set_late(&self, late: Duration) {
        self.lock().late = late;
    }

    /// Whether it takes what is submitted and answers with an error (hazard D4).
    pub fn set_false_error(&self, lie: bool) {
        self.lock().false_error = lie;
    }

    /// It works as it should.
    pub fn heal(&self) {
        let mut inner = self.lock();
        (inner.away, inner.false_error) = (false, false);
        (inner.slow, inner.late) = (Duration::ZERO, Duration::ZERO);
    }

    /// The highest height whose header is there.
    #[must_use]
    pub fn tip(&self) -> Height {
        self.lock().headers.last_key_value().map_or(Height(0), |(height, _)| *height)
    }

    /// How often it lied.
    #[must_use]
    pub fn false_errors(&self) -> u64 {
        self.lock().false_errors
    }

    /// Every header that came after the first so many, in order.
    #[must_use]
    pub fn posted_since(&self, seen: usize) -> Vec<Posted> {
        self.lock().posted.get(seen..).unwrap_or_default().to_vec()
    }

    /// The header hash of every height on DA.
    #[must_use]
    pub fn headers(&self) -> BTreeMap<Height, Hash> {
        self.lock().headers.clone()
    }

    /// The data of every height on DA, by the header's commitment to it.
    #[must_use]
    pub fn data(&self) -> BTreeMap<Height, SignedData> {
        let inner = self.lock();
        let all = inner.blocks.iter().flatten();
        let signed = all.filter_map(|blob| SignedData::decode(&blob.data).ok());
        let named = signed.filter_map(|signed| Some((signed.data.metadata.as_ref()?.height, signed)));
        named.filter(|(_, signed)| !signed.data.txs.is_empty()).collect()
    }

    /// The header hash of a height on DA.
    #[must_use]
    pub fn header(&self, height: Height) -> Option<Hash> {
        self.lock().headers.get(&height).copied()
    }

    /// Where the first copy of each header is.
    #[must_use]
    pub fn header_places(&self) -> BTreeMap<Height, DaHeight> {
        let mut places = BTreeMap::new();
        for (index, block) in self.lock().blocks.iter().enumerate() {
            for envelope in block.iter().filter_map(|blob| DaHeaderEnvelope::decode(&blob.data).ok()) {
                if !envelope.envelope_signature.is_empty() {
                    places.entry(envelope.signed.header.height).or_insert(DaHeight(index as u64 + 1));
                }
            }
        }
        places
    }

    /// Where the first copy of each height's data is.
    #[must_use]
    pub fn data_places(&self) -> BTreeMap<Height, DaHeight> {
        let mut places = BTreeMap::new();
        for (index, block) in self.lock().blocks.iter().enumerate() {
            let signed = block.iter().filter_map(|blob| SignedData::decode(&blob.data).ok());
            for metadata in signed.filter_map(|signed| signed.data.metadata) {
                places.entry(metadata.height).or_insert(DaHeight(index as u64 + 1));
            }
        }
        places
    }

    /// Everything in a namespace, with its DA height.
    #[must_use]
    pub fn places_of(&self, namespace: Namespace) -> Vec<(bytes::Bytes, DaHeight)> {
        let inner = self.lock();
        let blocks = inner.blocks.iter().enumerate();
        let all = blocks.flat_map(|(index, block)| block.iter().map(move |blob| (index, blob)));
        all.filter(|(_, blob)| blob.namespace == namespace)
            .map(|(index, blob)| (blob.data.clone(), DaHeight(index as u64 + 1)))
            .collect()
    }

    /// A DA block of somebody else, before all others.
    pub fn prepend(&self, blobs: Vec<Blob>) {
        self.lock().blocks.insert(0, blobs);
    }

    /// A DA block of somebody else, after all others.
    pub fn append(&self, blobs: Vec<Blob>) {
        self.lock().blocks.push(blobs);
    }

    /// Another ledger with the same blobs, each in a block of its own, in another order.
    #[must_use]
    pub fn shuffled(&self, seed: u64) -> Self {
        let inner = self.lock();
        let mut blobs: Vec<Blob> = inner.blocks.iter().flatten().cloned().collect();
        blobs.sort_by_key(|blob| Hash::of(&[&seed.to_le_bytes()[..], &blob.data].concat()));
        let blocks = blobs.into_iter().map(|blob| vec![blob]).collect();
        Self(Arc::new(Mutex::new(Inner { blocks, headers: inner.headers.clone(), ..Inner::default() })))
    }

    /// How many blobs there are, duplicates counted.
    #[must_use]
    pub fn blobs(&self) -> usize {
        self.lock().blocks.iter().map(Vec::len).sum()
    }
}

/// The layer as one node sees it.
#[derive(Clone, Debug)]
pub struct FakeDa {
    ledger: Ledger,
    power: Power,
    latency: Duration,
    poster: Uuid,
    /// Whether this node's way to the layer is cut.
    cut: Arc<AtomicBool>,
}

impl FakeDa {
    /// A view of the ledger that dies with the power.
    #[must_use]
    pub fn new(ledger: Ledger, power: Power, latency: Duration) -> Self {
        Self { ledger, power, latency, poster: Uuid::nil(), cut: Arc::default() }
    }

    /// The same, over a way that is cut while this says so.
    #[must_use]
    pub fn over(self, cut: Arc<AtomicBool>) -> Self {
        Self { cut, ..self }
    }

    /// The same, for the machine with this storage.
    #[must_use]
    pub fn by(self, poster: Uuid) -> Self {
        Self { poster, ..self }
    }

    async fn reached(&self) -> Result<(), DaError> {
        let slow = self.ledger.lock().slow;
        tokio::time::sleep(self.latency + slow).await;
        let mut inner = self.ledger.lock();
        inner.settle(Instant::now());
        match inner.away || self.cut.load(Ordering::Relaxed) {
            true => Err(DaError::Unavailable("away".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait(?Send)]
impl DaLayer for FakeDa {
    async fn submit(&self, blobs: &[Blob]) -> Result<DaHeight, DaError> {
        self.reached().await?;
        if !self.power.effect("da.submit") {
            return Err(DaError::Unavailable("no power".to_owned()));
        }
        let (number, late, lie) = {
            let mut inner = self.ledger.lock();
            inner.taken += 1;
            let (number, late) = (inner.taken, inner.late);
            match late.is_zero() {
                true => inner.include(number, self.poster, blobs.to_vec()),
                // It comes into a block whatever becomes of who submitted it.
                false => {
                    let (at, blobs) = (Instant::now() + late, blobs.to_vec());
                    inner.later.push(Later { at, number, poster: self.poster, blobs });
                }
            }
            let lie = inner.false_error;
            inner.false_errors += u64::from(lie);
            (number, late, lie)
        };
        // Taken, but the caller may never learn it.
        if !self.power.effect("da.submitted") {
            return Err(DaError::Unavailable("no power".to_owned()));
        }
        if lie {
            return Err(DaError::Unavailable("a false error".to_owned()));
        }
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        let mut inner = self.ledger.lock();
        inner.settle(Instant::now());
        let height = inner.included.get(&number).copied();
        height.ok_or_else(|| DaError::Unavailable("in no block yet".to_owned()))
    }

    async fn get_all(&self, height: DaHeight, namespaces: &[Namespace]) -> Result<Vec<Blob>, DaError> {
        self.reached().await?;
        let inner = self.ledger.lock();
        let index = usize::try_from(height.0).ok().and_then(|height| height.checked_sub(1));
        let block = index.and_then(|index| inner.blocks.get(index));
        let block = block.ok_or_else(|| DaError::FromTheFuture(height.to_string()))?;
        Ok(block.iter().filter(|blob| namespaces.contains(&blob.namespace)).cloned().collect())
    }

    async fn get(
        &self,
        height: DaHeight,
        namespace: Namespace,
        commitment: Hash,
    ) -> Result<Option<Blob>, DaError> {
        let blobs = self.get_all(height, &[namespace]).await?;
        let is_it =
            |blob: &Blob| baton_messages::da::blob_commitment(&blob.namespace, &blob.data) == commitment;
        Ok(blobs.into_iter().find(is_it))
    }

    async fn proof(
        &self,
        height: DaHeight,
        namespace: Namespace,
        commitment: Hash,
    ) -> Result<Option<Proof>, DaError> {
        let blob = self.get(height, namespace, commitment).await?;
        Ok(blob.map(|_| Proof(serde_json::Value::from(height.0))))
    }

    async fn included(
        &self,
        height: DaHeight,
        namespace: Namespace,
        proof: &Proof,
        commitment: Hash,
    ) -> Result<bool, DaError> {
        let blob = self.get(height, namespace, commitment).await?;
        Ok(blob.is_some() && proof.0 == height.0)
    }

    async fn header(&self, height: DaHeight) -> Result<DaHead, DaError> {
        Ok(DaHead { height, ..self.head().await? })
    }

    async fn head(&self) -> Result<DaHead, DaError> {
        self.reached().await?;
        let height = DaHeight(self.ledger.lock().blocks.len() as u64);
        Ok(DaHead { height, time: Timestamp(0) })
    }
}
