//! One attempt of one lane: which blobs, their bytes, the submission and its record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::MailboxError;
use baton_messages::chain::{DaHeaderEnvelope, SignedData, SignedHeader};
use baton_messages::command::{Command, Lane, Submitted};
use baton_messages::da::{Blob, DaError, GetBlobs, GetDaHead, Namespace, SubmitBlobs};
use baton_messages::engine::{EngineError, GetPosition};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::raft::{ProposeError, Record};
use baton_messages::signer::{SignData, SignEnvelope, SignError};
use baton_messages::types::{DaHeight, Grant, Height};
use baton_storage::Reader;
use baton_storage::backend::StoreError;
use bytes::Bytes;
use tracing::debug;

use super::{Config, Links};

/// Why nothing was posted, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer in time.
    #[error("no reply from the {who}: {source}")]
    NoReply {
        /// Who was asked.
        who: &'static str,
        /// What the mailbox says.
        source: MailboxError,
    },
    /// The DA layer's answer.
    #[error(transparent)]
    Da(#[from] DaError),
    /// The signer's.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Raft's, about the record.
    #[error("not recorded: {0}")]
    Record(#[from] ProposeError),
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// The value of the failure metric's label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoReply { .. } => "timeout",
            Self::Da(error) => error.reason(),
            Self::Sign(_) => "signer",
            Self::Record(_) => "not_recorded",
            Self::Engine(_) => "engine",
            Self::Store(_) => "store",
        }
    }
}

/// What an attempt came to.
#[derive(Debug)]
pub enum Posted {
    /// There is nothing to post.
    Nothing,
    /// DA was searched for blobs it may have taken; so many were found and recorded.
    Searched {
        /// How many.
        found: u64,
    },
    /// A range is on DA and recorded.
    Range {
        /// The range.
        range: Submitted,
        /// How many blobs; none when all blocks of a data range were empty.
        blobs: usize,
        /// How many bytes.
        bytes: usize,
        /// A limit of one submission ended it: there may be more to post at once.
        full: bool,
    },
}

/// A height and its blob; empty blocks have none in the data lane.
type Item = (Height, Option<Bytes>);

/// One attempt of one lane.
#[derive(Clone, Debug)]
pub struct Posting {
    pub(super) config: Config,
    pub(super) links: Links,
    pub(super) reader: Reader,
    pub(super) grant: Grant,
    pub(super) lane: Lane,
    pub(super) max_blobs: usize,
}

impl Posting {
    /// Posts the next range and records it.
    ///
    /// # Errors
    ///
    /// `Error` when DA, the signer or Raft refuses; the range may be on DA after a timeout.
    pub async fn post(self) -> Result<Posted, Error> {
        let (items, full) = self.next_items().await?;
        let (Some(first), Some(last)) = (items.first(), items.last()) else {
            return self.include().await.map(|()| Posted::Nothing);
        };
        let (from, to) = (first.0, last.0);
        let blobs: Vec<Blob> = items
            .into_iter()
            .filter_map(|(_, data)| Some(Blob { namespace: self.namespace(), data: data? }))
            .collect();
        let count = blobs.len();
        let bytes = blobs.iter().map(|blob| blob.data.len()).sum();
        let da_height = match blobs.is_empty() {
            true => self.reader.da_progress().da_height,
            false => {
                let submit = SubmitBlobs { grant: self.grant, blobs };
                fail::fail_point!("da.before_submit");
                let taken = self.links.submit.send(submit).timeout(self.config.submit_within).await;
                taken.map_err(|source| Error::NoReply { who: "DA layer", source })??
            }
        };
        fail::fail_point!("da.after_submit");
        let range = Submitted { lane: self.lane, from, to, da_height };
        if planted(Mutation::NoDaReceipt) {
            return Ok(Posted::Nothing);
        }
        self.record(Command::Submitted(range)).await?;
        fail::fail_point!("da.after_record");
        self.include().await?;
        fail::fail_point!("da.after_include");
        Ok(Posted::Range { range, blobs: count, bytes, full })
    }

    /// Looks on DA for blobs of the next range that it took although nobody said so.
    ///
    /// # Errors
    ///
    /// `Error` when DA does not answer.
    pub async fn search(self) -> Result<Posted, Error> {
        let (items, _) = self.next_items().await?;
        if items.is_empty() {
            self.include().await?;
            return Ok(Posted::Searched { found: 0 });
        }
        let head = self.links.head.send(GetDaHead).timeout(self.config.submit_within).await;
        let head = head.map_err(|source| Error::NoReply { who: "DA layer", source })??.height;
        // Others may write into the namespace: only what could be ours is kept.
        let wanted: BTreeSet<&Bytes> = items.iter().filter_map(|(_, blob)| blob.as_ref()).collect();
        let mut on_da: BTreeMap<Bytes, DaHeight> = BTreeMap::new();
        for da_height in self.search_from(head)?.0..=head.0 {
            for blob in self.blobs_at(DaHeight(da_height)).await? {
                if wanted.contains(&blob.data) {
                    on_da.entry(blob.data).or_insert(DaHeight(da_height));
                }
            }
        }
        let mut found = 0;
        for range in found_ranges(self.lane, &items, &on_da) {
            found += range.to.0 - range.from.0 + 1;
            self.record(Command::Submitted(range)).await?;
        }
        self.include().await?;
        Ok(Posted::Searched { found })
    }

    /// The lane's last known DA height, but not deeper than the limit.
    fn search_from(&self, head: DaHeight) -> Result<DaHeight, Error> {
        let deepest = head.0.saturating_sub(self.config.search_depth).max(1);
        let known = self.reader.da_height(self.lane, self.done())?;
        let known = known.unwrap_or(self.reader.genesis().da_start_height);
        Ok(DaHeight(known.0.max(deepest)))
    }

    /// A search is many questions: one that fails is asked again before all of it is given up.
    async fn blobs_at(&self, height: DaHeight) -> Result<Vec<Blob>, Error> {
        let mut failures = 0;
        loop {
            let get = GetBlobs { height, namespaces: vec![self.namespace()] };
            let blobs = self.links.get.send(get).timeout(self.config.submit_within).await;
            match blobs.map_err(|source| Error::NoReply { who: "DA layer", source })? {
                Ok(blobs) => return Ok(blobs),
                // The head was another node's: there is nothing of ours above what this one has.
                Err(DaError::FromTheFuture(_)) => return Ok(Vec::new()),
                Err(error) if failures == SEARCH_RETRIES => return Err(Error::Da(error)),
                Err(error) => {
                    failures += 1;
                    debug!(%error, %height, failures, "asking DA again");
                    tokio::time::sleep(SEARCH_PAUSE).await;
                }
            }
        }
    }

    fn namespace(&self) -> Namespace {
        match self.lane {
            Lane::Header => self.config.header_namespace,
            Lane::Data => self.config.data_namespace,
        }
    }

    fn done(&self) -> Height {
        let progress = self.reader.da_progress();
        match self.lane {
            Lane::Header => progress.headers,
            Lane::Data => progress.data,
        }
    }

    /// The blobs after what is done: executed, signed, and within the limits of one submission.
    /// Says whether a limit ended them.
    async fn next_items(&self) -> Result<(Vec<Item>, bool), Error> {
        let position = self.links.position.send(GetPosition).timeout(self.config.reply_within).await;
        let executed = position.map_err(|source| Error::NoReply { who: "engine", source })??.height;
        let executed =
            if planted(Mutation::PostBeforeExecution) { self.reader.tip().height } else { executed };
        let mut height = self.done().max(self.reader.initial_height().previous()).next();
        let (mut items, mut blobs, mut bytes) = (Vec::new(), 0, 0);
        while height <= executed {
            if blobs >= self.max_blobs || items.len() >= MAX_HEIGHTS {
                return Ok((items, true));
            }
            let Some(signed) = self.reader.signed_header(height, &self.config.signer)? else { break };
            let blob = match self.lane {
                Lane::Header => Some(self.header_blob(signed).await?),
                Lane::Data => self.data_blob(height).await?,
            };
            if let Some(blob) = &blob {
                if blobs > 0 && bytes + blob.len() > self.config.max_bytes {
                    return Ok((items, true));
                }
                blobs += 1;
                bytes += blob.len();
            }
            items.push((height, blob));
            height = height.next();
        }
        Ok((items, false))
    }

    async fn header_blob(&self, signed: SignedHeader) -> Result<Bytes, Error> {
        let signed = Arc::new(signed);
        let sign = SignEnvelope { signed: signed.clone() };
        let envelope_signature = self.links.sign_envelope.send(sign).timeout(self.config.reply_within).await;
        let envelope_signature =
            envelope_signature.map_err(|source| Error::NoReply { who: "signer", source })??;
        let signed = Arc::unwrap_or_clone(signed);
        Ok(DaHeaderEnvelope { signed, envelope_signature }.encode().into())
    }

    async fn data_blob(&self, height: Height) -> Result<Option<Bytes>, Error> {
        let missing = || StoreError::Corrupt(format!("the body of block {height} is missing"));
        let block = self.reader.block(height)?.ok_or_else(missing)?;
        if block.txs().is_empty() {
            return Ok(None);
        }
        let sign = SignData { block: block.clone() };
        let signature = self.links.sign_data.send(sign).timeout(self.config.reply_within).await;
        let signature = signature.map_err(|source| Error::NoReply { who: "signer", source })??;
        let signer = self.config.signer.clone();
        Ok(Some(SignedData { data: block.data().clone(), signature, signer }.encode().into()))
    }

    async fn record(&self, command: Command) -> Result<(), Error> {
        let record = Record { grant: self.grant, command };
        let recorded = self.links.record.send(record).timeout(self.config.reply_within).await;
        Ok(recorded.map_err(|source| Error::NoReply { who: "raft", source })??)
    }

    /// What both lanes have done is included, and recorded as such.
    async fn include(&self) -> Result<(), Error> {
        let progress = self.reader.da_progress();
        let both = progress.headers.min(progress.data);
        if both > progress.included {
            self.record(Command::Included(both)).await?;
        }
        Ok(())
    }
}

/// How often a question of a search is asked again, and after which pause.
const SEARCH_RETRIES: u32 = 5;
const SEARCH_PAUSE: Duration = Duration::from_millis(100);

/// Heights of one data range: bounds the work when most blocks are empty.
const MAX_HEIGHTS: usize = 10_000;

/// The ranges that can be recorded: from the first item on, without a gap. Blocks without a
/// blob belong to the range before them, and those at the beginning to the first.
fn found_ranges(lane: Lane, items: &[Item], on_da: &BTreeMap<Bytes, DaHeight>) -> Vec<Submitted> {
    let mut ranges: Vec<Submitted> = Vec::new();
    let first = items.first().map(|(height, _)| *height);
    for (height, blob) in items {
        let da_height = match blob {
            Some(blob) => match on_da.get(blob) {
                Some(da_height) => *da_height,
                None => break,
            },
            None => match ranges.last() {
                Some(last) => last.da_height,
                None => continue,
            },
        };
        match ranges.last_mut() {
            Some(last) if last.da_height == da_height => last.to = *height,
            Some(_) => ranges.push(Submitted { lane, from: *height, to: *height, da_height }),
            None => ranges.push(Submitted { lane, from: first.unwrap_or(*height), to: *height, da_height }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(height: u64, blob: Option<&'static str>) -> Item {
        (Height(height), blob.map(|blob| Bytes::from_static(blob.as_bytes())))
    }

    #[test]
    fn what_is_found_is_recorded_up_to_the_first_gap() {
        let items =
            [item(4, Some("a")), item(5, None), item(6, Some("b")), item(7, Some("c")), item(8, Some("d"))];
        let on_da = [("a", 10), ("b", 10), ("d", 11)];
        let on_da = on_da.into_iter().map(|(blob, at)| (Bytes::from_static(blob.as_bytes()), DaHeight(at)));
        let ranges = found_ranges(Lane::Data, &items, &on_da.collect());
        let expected =
            Submitted { lane: Lane::Data, from: Height(4), to: Height(6), da_height: DaHeight(10) };
        assert_eq!(ranges, [expected]);
    }

    #[test]
    fn blocks_without_a_blob_at_the_beginning_belong_to_the_first_range() {
        let items = [item(4, None), item(5, None), item(6, Some("a")), item(7, None), item(8, Some("b"))];
        let on_da: BTreeMap<_, _> = [(Bytes::from_static(b"a"), DaHeight(10))].into();
        let ranges = found_ranges(Lane::Data, &items, &on_da);
        let expected =
            Submitted { lane: Lane::Data, from: Height(4), to: Height(7), da_height: DaHeight(10) };
        assert_eq!(ranges, [expected]);
        assert_eq!(
            found_ranges(Lane::Data, &items, &BTreeMap::new()),
            [],
            "nothing is known of the empty ones"
        );
    }

    #[test]
    fn blobs_at_two_da_heights_are_two_ranges() {
        let items = [item(1, Some("a")), item(2, Some("b"))];
        let on_da = [("a", 10), ("b", 12)];
        let on_da = on_da.into_iter().map(|(blob, at)| (Bytes::from_static(blob.as_bytes()), DaHeight(at)));
        let ranges = found_ranges(Lane::Header, &items, &on_da.collect());
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges[1].from, Height(2));
        assert_eq!(ranges[1].da_height, DaHeight(12));
    }
}
