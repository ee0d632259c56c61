//! Pieces of blocks that are not in the chain yet: headers and data that wait for their turn or
//! for their other half.
//!
//! Bounded: what lies too far ahead, or does not fit, is dropped, and where on DA that was is
//! remembered, so that it is read again when its turn comes. Headers are checked before they come
//! here; data are chosen by the header's commitment, so nobody blocks a height with wrong data.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_messages::chain::{Data, Header, Metadata, SignedHeader};
use baton_messages::follow::Origin;
use baton_messages::types::{DaHeight, Hash, Height, Timestamp};
use bytes::Bytes;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Heights above the tip.
    pub ahead: u64,
    /// Bytes of all that waits, as it is in memory; the next block finds room in any case.
    pub bytes: usize,
    /// Different data of one height whose header is not known yet; one of each peer.
    pub per_height: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ahead: 4096, bytes: 64 << 20, per_height: 4 }
    }
}

/// A header that waits.
#[derive(Clone, Debug)]
struct HeaderAt {
    signed: Arc<SignedHeader>,
    hash: Hash,
    bytes: usize,
    from: Origin,
    da: Option<DaHeight>,
    /// It is signed in the encoding of old chains, and may be another header in the chain.
    may_have_a_twin: bool,
    /// Where on DA it is in its other encoding.
    twin_da: Option<DaHeight>,
}

/// Data that wait.
#[derive(Clone, Debug)]
struct DataAt {
    data: Arc<Data>,
    commitment: Hash,
    bytes: usize,
    from: Origin,
    da: Option<DaHeight>,
}

/// What became of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It waits for its turn.
    New,
    /// It waits already.
    Known,
    /// There is no room for it.
    Dropped,
    /// The header that waits already says that these data belong to another block.
    Foreign,
    /// It is the header that waits already in its other encoding: one of them is the chain's.
    Twin,
    /// Another header of this height waits already: that one, and where it came from.
    Fork(Arc<SignedHeader>, Origin),
}

/// A block whose halves are both here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its header.
    pub signed: Arc<SignedHeader>,
    /// The header's hash.
    pub hash: Hash,
    /// Its data.
    pub data: Arc<Data>,
    /// Where the header came from.
    pub from: Origin,
    /// Where the data came from; where the header did for a block without transactions.
    pub data_from: Origin,
    /// Where on DA the header is.
    pub header_da: Option<DaHeight>,
    /// Where on DA the data are.
    pub data_da: Option<DaHeight>,
}

/// Something on DA was read and not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dropped {
    /// The lowest height of it.
    height: Height,
    /// The lowest place of it.
    da: DaHeight,
}

/// Something on DA was read whose time has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Early {
    /// The lowest height of it.
    height: Height,
    /// The lowest place of it.
    da: DaHeight,
    /// The lowest time of it.
    time: Timestamp,
}

/// The pieces that wait.
#[derive(Debug)]
pub struct Candidates {
    limits: Limits,
    headers: BTreeMap<Height, HeaderAt>,
    data: BTreeMap<Height, Vec<DataAt>>,
    bytes: usize,
    /// How many pieces wait that lie at each place on DA.
    places: BTreeMap<DaHeight, usize>,
    dropped: Option<Dropped>,
    early: Option<Early>,
}

impl Candidates {
    /// Nothing waits yet.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            headers: BTreeMap::new(),
            data: BTreeMap::new(),
            bytes: 0,
            places: BTreeMap::new(),
            dropped: None,
            early: None,
        }
    }

    /// Whether this very header waits.
    #[must_use]
    pub fn knows(&self, height: Height, hash: Hash) -> bool {
        self.headers.get(&height).is_some_and(|known| known.hash == hash)
    }

    /// Whether a header of this height waits.
    #[must_use]
    pub fn has_header(&self, height: Height) -> bool {
        self.headers.contains_key(&height)
    }

    /// The header of this height that waits, its hash, and where it came from.
    #[must_use]
    pub fn header_of(&self, height: Height) -> Option<(Arc<SignedHeader>, Hash, Origin)> {
        let header = self.headers.get(&height)?;
        Some((header.signed.clone(), header.hash, header.from.clone()))
    }

    /// How many pieces wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.headers.len() + self.data.values().map(Vec::len).sum::<usize>()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.data.is_empty()
    }

    /// Bytes of what waits.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// So much waits that no more should be offered, as long as there is something to do.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= self.limits.bytes / 2 || self.headers.len() as u64 >= self.limits.ahead / 2
    }

    /// Takes a checked header above the tip.
    pub fn header(&mut self, tip: Height, signed: Arc<SignedHeader>, hash: Hash, from: Origin) -> Kept {
        let height = signed.header.height;
        if let Some(known) = self.headers.get_mut(&height) {
            let twin = known.hash != hash;
            if twin && known.signed.signature != signed.signature {
                return Kept::Fork(known.signed.clone(), known.from.clone());
            }
            let place = if twin { &mut known.twin_da } else { &mut known.da };
            if place.is_none()
                && let Some(da) = from.da()
            {
                *place = Some(da);
                *self.places.entry(da).or_default() += 1;
            }
            return if twin { Kept::Twin } else { Kept::Known };
        }
        if height.0 > tip.0.saturating_add(self.limits.ahead) {
            return self.drop_it(height, &from);
        }
        let bytes = signed.weight();
        // The next header may wait for the one above it: there is room for that one, too.
        if height > tip.next().next() && !self.has_room(tip, height, bytes) {
            return self.drop_it(height, &from);
        }
        let da = from.da();
        self.place(da);
        self.bytes += bytes;
        // Data that came before it and are another block's.
        if let Some(waiting) = self.data.remove(&height) {
            let (fit, foreign): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|data| belongs(&signed.header, &data.data, data.commitment));
            for data in &foreign {
                self.forget(data);
            }
            if !fit.is_empty() {
                self.data.insert(height, fit);
            }
        }
        let (may_have_a_twin, twin_da) = (false, None);
        self.headers.insert(height, HeaderAt { signed, hash, bytes, from, da, may_have_a_twin, twin_da });
        Kept::New
    }

    /// The header of this height that waits is signed in the encoding of old chains.
    pub fn may_have_a_twin(&mut self, height: Height) {
        if let Some(header) = self.headers.get_mut(&height) {
            header.may_have_a_twin = header.signed.header.twin().is_some();
        }
    }

    /// Whether it is known in which encoding the header of this height is the chain's: in the one on
    /// which the header above stands, and it is in that one from now on (hazard H21).
    pub fn settle(&mut self, height: Height) -> bool {
        let above =
            self.headers.get(&height.next()).map(|above| above.signed.header.last_header_hash.clone());
        let Some(header) = self.headers.get_mut(&height).filter(|header| header.may_have_a_twin) else {
            return true;
        };
        let Some(parent) = above else { return false };
        if let Some(twin) = header.signed.header.twin()
            && parent[..] == twin.hash().0
        {
            header.hash = twin.hash();
            let SignedHeader { signature, signer, .. } = SignedHeader::clone(&header.signed);
            header.signed = Arc::new(SignedHeader { header: twin, signature, signer });
            let bytes = header.signed.weight();
            self.bytes = self.bytes - header.bytes + bytes;
            header.bytes = bytes;
            std::mem::swap(&mut header.da, &mut header.twin_da);
        }
        header.may_have_a_twin = false;
        // What a stranger wrote in the other encoding is not the chain's.
        let strangers = header.twin_da.take();
        self.displace(strangers);
        true
    }

    /// Takes data above the tip.
    pub fn data(
        &mut self,
        tip: Height,
        height: Height,
        data: Arc<Data>,
        commitment: Hash,
        from: Origin,
    ) -> Kept {
        if let Some(header) = self.headers.get(&height)
            && !belongs(&header.signed.header, &data, commitment)
        {
            return Kept::Foreign;
        }
        let same =
            |known: &&mut DataAt| known.commitment == commitment && known.data.metadata == data.metadata;
        if let Some(known) = self.data.get_mut(&height).and_then(|waiting| waiting.iter_mut().find(same)) {
            if known.da.is_none()
                && let Some(da) = from.da()
            {
                known.da = Some(da);
                *self.places.entry(da).or_default() += 1;
            }
            return Kept::Known;
        }
        if height.0 > tip.0.saturating_add(self.limits.ahead) {
            return self.drop_it(height, &from);
        }
        let bytes = data.weight();
        if !self.has_room(tip, height, bytes) {
            return self.drop_it(height, &from);
        }
        if !self.has_place(height, &from) {
            return self.drop_it(height, &from);
        }
        let da = from.da();
        self.data.entry(height).or_default().push(DataAt { data, commitment, bytes, from, da });
        self.bytes += bytes;
        self.place(da);
        Kept::New
    }

    /// Whether more data of a height may wait. What the proposer has signed takes the place of what
    /// peers gave, which nobody has signed.
    fn has_place(&mut self, height: Height, from: &Origin) -> bool {
        let Some(waiting) = self.data.get_mut(&height) else { return true };
        if from.da().is_none() && waiting.iter().any(|known| known.from == *from) {
            return false;
        }
        if waiting.len() < self.limits.per_height {
            return true;
        }
        let unsigned = waiting.iter().position(|known| known.da.is_none());
        let evicted = unsigned.filter(|_| from.da().is_some()).map(|place| waiting.swap_remove(place));
        if let Some(evicted) = &evicted {
            self.forget(evicted);
        }
        evicted.is_some()
    }

    /// Drops the data of a height, now the next, that peers gave and that do not name the data of the
    /// tip: they would never enter, and be in the way of those that do. Where those with transactions
    /// came from; without them they may be what an honest node made up from the header.
    pub fn drop_unlinked(&mut self, height: Height, last_data_hash: &Bytes) -> Vec<Origin> {
        let Some(waiting) = self.data.remove(&height) else { return vec![] };
        let (keep, unlinked): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|data| data.da.is_some() || links(&data.data, last_data_hash));
        for data in &unlinked {
            self.forget(data);
        }
        if !keep.is_empty() {
            self.data.insert(height, keep);
        }
        unlinked.into_iter().filter(|data| !data.data.txs.is_empty()).map(|data| data.from).collect()
    }

    /// The block of a height, if both halves are here. `last_data_hash` is the hash of the data
    /// before: among equal transactions the data that say so are taken, others only from DA, where
    /// the proposer has signed them.
    #[must_use]
    pub fn ready(&self, height: Height, last_data_hash: &Bytes) -> Option<Ready> {
        let header = self.headers.get(&height)?;
        let HeaderAt { signed, hash, from, da, .. } = header;
        let ready = |data: Arc<Data>, data_from: &Origin, data_da| Ready {
            signed: signed.clone(),
            hash: *hash,
            data,
            from: from.clone(),
            data_from: data_from.clone(),
            header_da: *da,
            data_da,
        };
        if is_empty(&signed.header.data_hash) {
            let header = &signed.header;
            let metadata = Metadata {
                chain_id: header.chain_id.clone(),
                height,
                time: header.time,
                last_data_hash: last_data_hash.clone(),
            };
            let data = Arc::new(Data { metadata: Some(metadata), txs: vec![] });
            return Some(ready(data, from, *da));
        }
        let waiting = self.data.get(&height)?;
        let linked = waiting.iter().find(|data| links(&data.data, last_data_hash));
        let chosen = linked.or_else(|| waiting.iter().find(|data| data.da.is_some()))?;
        let data_da = waiting.iter().find_map(|data| data.da);
        Some(ready(chosen.data.clone(), &chosen.from, data_da))
    }

    /// Forgets everything up to a height: it is in the chain.
    pub fn passed(&mut self, tip: Height) {
        while self.headers.first_key_value().is_some_and(|(height, _)| *height <= tip) {
            if let Some((_, header)) = self.headers.pop_first() {
                self.forget_header(&header);
            }
        }
        while self.data.first_key_value().is_some_and(|(height, _)| *height <= tip) {
            if let Some((_, waiting)) = self.data.pop_first() {
                for data in &waiting {
                    self.forget(data);
                }
            }
        }
    }

    /// Forgets the header of a height: it was found wrong. What is right is read again.
    pub fn reject(&mut self, height: Height) {
        if let Some(header) = self.headers.remove(&height) {
            self.forget_header(&header);
        }
    }

    /// Forgets data that do not belong to their header.
    pub fn reject_data(&mut self, height: Height, from: &Origin) {
        let Some(mut waiting) = self.data.remove(&height) else { return };
        waiting.retain(|data| {
            let keep = data.from != *from;
            if !keep {
                self.bytes -= data.bytes;
                displace(&mut self.places, data.da);
            }
            keep
        });
        if !waiting.is_empty() {
            self.data.insert(height, waiting);
        }
    }

    /// Something of DA has no room.
    pub fn drop_it(&mut self, height: Height, from: &Origin) -> Kept {
        if let Some(da) = from.da() {
            let now = self.dropped.get_or_insert(Dropped { height, da });
            now.height = now.height.min(height);
            now.da = now.da.min(da);
        }
        Kept::Dropped
    }

    /// The time of something above the tip has not come by the clock here.
    pub fn not_yet(&mut self, height: Height, time: Timestamp, from: &Origin) {
        let Some(da) = from.da() else { return };
        let early = self.early.get_or_insert(Early { height, da, time });
        early.height = early.height.min(height);
        early.da = early.da.min(da);
        early.time = early.time.min(time);
    }

    /// Where on DA to read again for what was there before its time: when that has come, or when it is
    /// what the tip waits for and nothing else is looked for further on.
    pub fn reread_early(&mut self, tip: Height, nothing_above: bool, now: Timestamp) -> Option<DaHeight> {
        let is_due = |early: &mut Early| early.time <= now || (nothing_above && early.height <= tip.next());
        self.early.take_if(is_due).map(|early| early.da)
    }

    /// Where on DA to read again, once what was dropped there is the next that is missing.
    pub fn reread(&mut self, tip: Height) -> Option<DaHeight> {
        let next = tip.next();
        let header = self.headers.get(&next);
        // It may be the header above that is missing, which says in which encoding the next one is.
        let unsettled = header.is_some_and(|header| header.may_have_a_twin);
        let lacks_above = unsettled && !self.headers.contains_key(&next.next());
        let lacks = header.is_none() || self.lacks_data(next);
        let is_due = |dropped: &mut Dropped| {
            (lacks && dropped.height <= next) || (lacks_above && dropped.height <= next.next())
        };
        self.dropped.take_if(is_due).map(|dropped| dropped.da)
    }

    /// The lowest place on DA of which something waits, was dropped or came before its time.
    #[must_use]
    pub fn lowest_da(&self) -> Option<DaHeight> {
        let waiting = self.places.first_key_value().map(|(da, _)| *da);
        let dropped = self.dropped.map(|dropped| dropped.da);
        waiting.into_iter().chain(dropped).chain(self.early.map(|early| early.da)).min()
    }

    /// The first heights whose header, and whose data, is not here, above the tip and below the
    /// highest header: what to ask peers for.
    #[must_use]
    pub fn lacking(&self, tip: Height) -> Option<Height> {
        let next = tip.next();
        (!self.headers.contains_key(&next) || self.lacks_data(next)).then_some(next)
    }

    fn lacks_data(&self, height: Height) -> bool {
        let header = self.headers.get(&height);
        header.is_some_and(|header| !is_empty(&header.signed.header.data_hash))
            && !self.data.contains_key(&height)
    }

    fn has_room(&mut self, tip: Height, height: Height, bytes: usize) -> bool {
        self.bytes + bytes <= self.limits.bytes || height == tip.next() || self.make_room(height, bytes)
    }

    /// Drops data of the highest heights until so many bytes fit below; `false` if they do not.
    fn make_room(&mut self, below: Height, bytes: usize) -> bool {
        while self.bytes + bytes > self.limits.bytes {
            let Some((height, waiting)) = self.data.pop_last() else { return false };
            if height <= below {
                self.data.insert(height, waiting);
                return false;
            }
            for data in &waiting {
                self.forget(data);
                self.drop_it(height, &data.da.map_or_else(|| data.from.clone(), Origin::Da));
            }
        }
        true
    }

    fn place(&mut self, da: Option<DaHeight>) {
        if let Some(da) = da {
            *self.places.entry(da).or_default() += 1;
        }
    }

    fn displace(&mut self, da: Option<DaHeight>) {
        displace(&mut self.places, da);
    }

    fn forget_header(&mut self, header: &HeaderAt) {
        self.bytes -= header.bytes;
        self.displace(header.da);
        self.displace(header.twin_da);
    }

    fn forget(&mut self, data: &DataAt) {
        self.bytes -= data.bytes;
        self.displace(data.da);
    }
}

fn displace(places: &mut BTreeMap<DaHeight, usize>, da: Option<DaHeight>) {
    let Some(da) = da else { return };
    if let Some(count) = places.get_mut(&da) {
        *count -= 1;
        if *count == 0 {
            places.remove(&da);
        }
    }
}

/// Whether data are those of a header: the transactions, and all of the metadata that it says, too.
fn belongs(header: &Header, data: &Data, commitment: Hash) -> bool {
    let says_so = |metadata: &Metadata| {
        metadata.chain_id == header.chain_id
            && metadata.height == header.height
            && metadata.time == header.time
    };
    header.data_hash == commitment.0[..] && data.metadata.as_ref().is_none_or(says_so)
}

/// Whether data name these as the data before.
#[must_use]
pub fn links(data: &Data, last_data_hash: &Bytes) -> bool {
    data.metadata.as_ref().is_some_and(|metadata| metadata.last_data_hash == *last_data_hash)
}

/// Whether a header says that its block has no transactions (wire section 4.4).
#[must_use]
pub fn is_empty(data_hash: &Bytes) -> bool {
    data_hash.is_empty() || *data_hash == Data::default().commitment().0[..]
}

#[cfg(test)]
mod tests;
