//! Whether the proposer has left out what was forced through DA, by ev-node's rule (wire section 4.6).
//!
//! A block that lies on DA beyond the grace of an epoch must have everything that was forced in that
//! epoch in the chain up to itself. Blocks are judged in the order of the chain when they are found on
//! DA, wherever they came from first, and become final after that. What is needed is looked up: in
//! the store which blocks are where on DA, and on DA what was forced. Nothing is kept in memory, so a
//! restart loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, MailboxError, Recipient, WrapFuture};
use baton_messages::da::{DaError, GetBlobs, Namespace};
use baton_messages::engine::{EngineError, FilterStatus, FilterTxs};
use baton_messages::epoch::{Epoch, Epochs};
use baton_messages::follow::ForcedLeftOut;
use baton_messages::types::{DaHeight, Hash, Height, Timestamp, Tx};
use baton_storage::{LeftOut, MOST_EVIDENCE, Reader, StoreError};
use futures::StreamExt;
use tracing::{debug, error, info, warn};

use super::Syncer;
use super::inclusion::Inclusion;
use crate::quiet::Quiet;

/// How forced inclusion is checked.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Where forced transactions are.
    pub namespace: Namespace,
    /// How long an answer may take.
    pub reply_within: Duration,
}

/// Who is asked, and who is told.
#[derive(Clone, Debug)]
pub struct Links {
    /// Reads blobs.
    pub get: Recipient<GetBlobs>,
    /// Says which transactions no block may hold: nobody is to blame for those.
    pub filter: Recipient<FilterTxs>,
    /// Hears what was left out.
    pub left_out: Recipient<ForcedLeftOut>,
}

/// ev-node's largest blob. What comes behind so many bytes of an epoch is not judged, as in ev-node.
const MOST_BYTES: usize = 5 << 20;
/// A DA block with more bytes of transactions than this is full: 0.8 of the largest blob.
const FULL: u64 = 4_194_304;
/// Epochs of grace at the most.
const MOST_GRACE: u64 = 4;
/// DA heights that are read at the same time.
const IN_FLIGHT: usize = 16;
/// Blocks are on DA in about their order: below so many that are further down nothing is looked for.
const OUT_OF_ORDER: u32 = 256;
/// The thread is for others too.
const TURN: u32 = 64;

/// Epochs of grace, given how many bytes of transactions each DA block of the epoch holds.
fn grace(bytes: u64, heights: u64) -> u64 {
    let average = bytes / heights.max(1);
    let extra = average.saturating_sub(FULL) / FULL;
    (1 + extra).min(MOST_GRACE)
}

/// A block that may be final once this epoch is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    epoch: Epoch,
    height: Height,
    da: DaHeight,
}

/// Which blocks have been judged, and which epochs.
#[derive(Debug)]
struct Progress {
    epochs: Epochs,
    /// The last DA height of the epochs that were judged; `None` before the first.
    judged: Option<DaHeight>,
    /// An epoch that ends here has grace up to there.
    extended: Option<(DaHeight, DaHeight)>,
    /// Blocks up to here may be final.
    admitted: Height,
    /// Where those are on DA that are not recorded yet.
    recent: BTreeMap<Height, DaHeight>,
    wanted: Option<Wanted>,
}

impl Progress {
    /// What was final may be; its epochs have been judged but for those that may have had the longest
    /// grace.
    fn new(epochs: Epochs, included: Height, at: Option<DaHeight>) -> Self {
        let longest = epochs.size().saturating_mul(MOST_GRACE);
        let judged = at.and_then(|at| at.0.checked_sub(longest)).and_then(|over| {
            let epoch = epochs.at(DaHeight(over));
            // The epoch of that height is not over; the one before is, where there is one.
            (epoch.number > 1).then(|| DaHeight(epoch.start.0 - 1))
        });
        Self { epochs, judged, extended: None, admitted: included, recent: BTreeMap::new(), wanted: None }
    }

    /// The epoch that must be judged before a block at this DA height may be final.
    fn due(&self, da: DaHeight) -> Option<Epoch> {
        let epoch = match self.judged {
            None => self.epochs.first(),
            Some(judged) => self.epochs.at(DaHeight(judged.0.saturating_add(1))),
        };
        let usual = epoch.end.0.saturating_add(self.epochs.size().max(1));
        let grace = self.extended.filter(|(end, _)| *end == epoch.end).map_or(usual, |(_, until)| until.0);
        (grace < da.0).then_some(epoch)
    }

    /// How far blocks may become final, out of those that could.
    fn up_to(&mut self, inclusion: &Inclusion, included: Height, up_to: Height) -> Height {
        self.admitted = self.admitted.max(included);
        self.recent = self.recent.split_off(&included.next());
        self.wanted = None;
        while self.admitted < up_to
            && let Some(da) = inclusion.place(self.admitted.next())
        {
            let height = self.admitted.next();
            if let Some(epoch) = self.due(da) {
                self.wanted = Some(Wanted { epoch, height, da });
                break;
            }
            self.recent.insert(height, da);
            self.admitted = height;
        }
        up_to.min(self.admitted)
    }
}

/// Judges a chain.
#[derive(Debug)]
pub(super) struct Check {
    config: Config,
    links: Links,
    progress: Progress,
    left_out: bool,
    busy: bool,
    quiet: Quiet,
}

impl Check {
    pub(super) fn new(config: Config, links: Links, reader: &Reader) -> Result<Self, StoreError> {
        let progress = Self::progress(reader)?;
        let left_out = reader.left_out().is_some();
        Ok(Self { config, links, progress, left_out, busy: false, quiet: Quiet::default() })
    }

    fn progress(reader: &Reader) -> Result<Progress, StoreError> {
        let included = reader.da_progress().included;
        let at = reader.da_heights(included)?.map(|(header, data)| header.max(data));
        Ok(Progress::new(Epochs::of(reader.genesis()), included, at))
    }

    /// What was not recorded is found again.
    pub(super) fn start_over(&mut self, reader: &Reader) -> Result<(), StoreError> {
        self.progress = Self::progress(reader)?;
        Ok(())
    }

    /// No further block is taken.
    pub(super) const fn is_halted(&self) -> bool {
        self.left_out
    }

    /// How far blocks may become final.
    pub(super) fn up_to(&mut self, inclusion: &Inclusion, included: Height, up_to: Height) -> Height {
        match self.left_out {
            true => up_to.min(included),
            false => self.progress.up_to(inclusion, included, up_to),
        }
    }
}

/// What was found about an epoch.
enum Judgement {
    /// Everything is in the chain.
    Kept,
    /// Something is not, and may still come, up to this DA height.
    Later(DaHeight),
    /// It is too late for these.
    LeftOut(Vec<Hash>),
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reply: {0}")]
    NoReply(#[from] MailboxError),
    #[error(transparent)]
    Da(#[from] DaError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("block {0} is not here yet")]
    NoBlock(Height),
}

/// The questions about one epoch, so that the actor is untouched while they are asked.
struct Judging {
    config: Config,
    links: Links,
    reader: Reader,
    epochs: Epochs,
    wanted: Wanted,
    recent: BTreeMap<Height, DaHeight>,
}

impl Judging {
    async fn judge(self) -> Result<Judgement, Error> {
        let mut missing = self.forced().await?;
        if missing.is_empty() {
            return Ok(Judgement::Kept);
        }
        let bytes = self.look_for(&mut missing).await?;
        if missing.is_empty() {
            return Ok(Judgement::Kept);
        }
        let Wanted { epoch, da, .. } = self.wanted;
        let size = self.epochs.size().max(1);
        let until = epoch.end.0.saturating_add(grace(bytes, size).saturating_mul(size));
        Ok(match until >= da.0 {
            true => Judgement::Later(DaHeight(until)),
            false => Judgement::LeftOut(missing.into_iter().collect()),
        })
    }

    /// What the epoch's transactions are that a block may hold.
    async fn forced(&self) -> Result<BTreeSet<Hash>, Error> {
        let Epoch { start, end, .. } = self.wanted.epoch;
        let ask = |height| {
            let get = GetBlobs { height: DaHeight(height), namespaces: vec![self.config.namespace] };
            self.links.get.send(get).timeout(self.config.reply_within)
        };
        let mut answers = futures::stream::iter(start.0.max(1)..=end.0).map(ask).buffered(IN_FLIGHT);
        let (mut txs, mut bytes) = (vec![], 0);
        while let Some(answer) = answers.next().await {
            let own = answer??.into_iter().filter(|blob| blob.namespace == self.config.namespace);
            for blob in own.filter(|blob| !blob.data.is_empty() && blob.data.len() <= MOST_BYTES) {
                bytes += blob.data.len();
                if bytes <= MOST_BYTES {
                    txs.push(Tx(blob.data));
                }
            }
        }
        if txs.is_empty() {
            return Ok(BTreeSet::new());
        }
        let filter = FilterTxs { forced: txs.len(), txs: txs.clone(), max_bytes: MOST_BYTES };
        let statuses = self.links.filter.send(filter).timeout(self.config.reply_within).await??;
        let valid = txs.iter().zip(statuses).filter(|(_, status)| *status == FilterStatus::Ok);
        Ok(valid.map(|(tx, _)| tx.hash()).collect())
    }

    /// Strikes out what is in blocks up to the wanted one, downwards to where the epoch began. Returns
    /// the bytes of transactions of the blocks that are on DA in the epoch.
    async fn look_for(&self, missing: &mut BTreeSet<Hash>) -> Result<u64, Error> {
        let Wanted { epoch, height: from, da } = self.wanted;
        let (mut height, mut below, mut bytes, mut turn) = (from, 0, 0_u64, 0);
        while height >= self.reader.initial_height() && below < OUT_OF_ORDER && !missing.is_empty() {
            let at = match self.recent.get(&height) {
                _ if height == from => Some(da),
                Some(at) => Some(*at),
                None => self.reader.da_heights(height)?.map(|(header, data)| header.max(data)),
            };
            if at.is_some_and(|at| at >= epoch.start) {
                below = 0;
                let block = self.reader.block(height)?.ok_or(Error::NoBlock(height))?;
                if at.is_some_and(|at| at <= epoch.end) {
                    bytes += block.tx_bytes() as u64;
                }
                for tx in block.txs() {
                    missing.remove(&tx.hash());
                }
            } else {
                below += 1;
            }
            height = height.previous();
            turn += 1;
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(bytes)
    }
}

impl Syncer {
    /// Judges the epoch that keeps blocks from becoming final, one at a time.
    pub(super) fn begin_judging(&mut self, ctx: &mut Context<Self>) {
        let Some(check) = self.follow.as_mut().and_then(|follow| follow.check.as_mut()) else { return };
        let Some(wanted) = check.progress.wanted.filter(|_| !check.busy && !check.left_out) else { return };
        check.busy = true;
        let judging = Judging {
            config: check.config,
            links: check.links.clone(),
            reader: self.reader.clone(),
            epochs: check.progress.epochs,
            wanted,
            recent: check.progress.recent.clone(),
        };
        let judged = judging.judge().into_actor(self);
        ctx.spawn(judged.map(move |judged, this, ctx| this.end_judging(wanted, judged, ctx)));
    }

    fn end_judging(&mut self, wanted: Wanted, judged: Result<Judgement, Error>, ctx: &mut Context<Self>) {
        let Some(follow) = &mut self.follow else { return };
        let Some(check) = &mut follow.check else { return };
        check.busy = false;
        let Wanted { epoch, .. } = wanted;
        if check.progress.wanted.is_none_or(|now| now.epoch != epoch) {
            return self.judge_on(ctx);
        }
        match judged {
            Ok(Judgement::Kept) => {
                debug!(from = epoch.start.0, to = epoch.end.0, "everything forced is in the chain");
                check.quiet.is_over();
                check.progress.judged = Some(epoch.end);
            }
            Ok(Judgement::Later(until)) => {
                info!(to = epoch.end.0, until = until.0, "forced transactions are late: DA was full");
                check.progress.extended = Some((epoch.end, until));
            }
            Ok(Judgement::LeftOut(missing)) => {
                return self.end_left_out(wanted, missing, ctx);
            }
            Err(error) => {
                match check.quiet.says(&error.to_string()) {
                    true => {
                        warn!(%error, from = epoch.start.0, to = epoch.end.0, "forced inclusion is not judged")
                    }
                    false => debug!(%error, from = epoch.start.0, to = epoch.end.0, "not judged yet"),
                }
                ctx.run_later(self.config.retry_after, Self::begin_judging);
                return;
            }
        }
        self.judge_on(ctx);
    }

    fn judge_on(&mut self, ctx: &mut Context<Self>) {
        self.write_progress(ctx);
        self.go_on(ctx);
    }

    /// The proposer censors: nothing more of it is taken, and a person hears why.
    fn end_left_out(&mut self, wanted: Wanted, missing: Vec<Hash>, ctx: &mut Context<Self>) {
        let Some(follow) = &mut self.follow else { return };
        let (writer, found) = (follow.writer(), follow.wall());
        follow.count_left_out(missing.len() as u64);
        let Some(check) = &mut follow.check else { return };
        check.left_out = true;
        let left_out = LeftOut {
            from: wanted.epoch.start,
            to: wanted.epoch.end,
            height: wanted.height,
            da_height: wanted.da,
            count: missing.len() as u64,
            txs: missing.into_iter().take(MOST_EVIDENCE).collect(),
            found,
        };
        let reason = said(&left_out);
        error!(%reason, "forced inclusion");
        let told = check.links.left_out.clone();
        let kept = async move {
            let kept = writer.keep_left_out(left_out).await;
            // Told also when it cannot be kept: a person is needed more than ever then.
            told.do_send(ForcedLeftOut { reason });
            kept
        };
        ctx.spawn(kept.into_actor(self).map(|kept, _, _| {
            if let Err(error) = kept {
                warn!(%error, "evidence of what was left out was not kept");
            }
        }));
    }
}

/// What is said about it.
#[must_use]
pub fn said(left_out: &LeftOut) -> String {
    let LeftOut { from, to, height, da_height, count, txs, found: Timestamp(_) } = left_out;
    let first = txs.first().map(Hash::to_string).unwrap_or_default();
    format!(
        "the proposer left out {count} transactions that were forced at DA heights {from} to {to}, {first} among them: \
         block {height}, at DA height {da_height}, came without them; no block from there on is taken; find out why, and \
         unset da.forced_inclusion_namespace to follow this proposer all the same"
    )
}

#[cfg(test)]
mod tests {
    use baton_messages::command::Lane;

    use super::*;

    const EPOCHS: Epochs = Epochs::new(DaHeight(10), 5);

    fn seen(places: &[(u64, u64)]) -> Inclusion {
        let mut inclusion = Inclusion::new(100);
        for (height, da) in places {
            inclusion.saw(Lane::Header, Height(*height), DaHeight(*da), true);
        }
        inclusion
    }

    #[test]
    fn a_block_waits_for_the_judgement_of_every_epoch_whose_grace_it_has_passed() {
        let mut progress = Progress::new(EPOCHS, Height(0), None);
        let inclusion = seen(&[(1, 12), (2, 19), (3, 20), (4, 25)]);
        assert_eq!(progress.up_to(&inclusion, Height(0), Height(9)), Height(2), "19 is within the grace");
        let wanted = progress.wanted.expect("the first epoch");
        assert_eq!((wanted.epoch.end, wanted.height, wanted.da), (DaHeight(14), Height(3), DaHeight(20)));
        progress.judged = Some(wanted.epoch.end);
        assert_eq!(progress.up_to(&inclusion, Height(0), Height(9)), Height(3));
        assert_eq!(progress.wanted.map(|wanted| wanted.epoch.end), Some(DaHeight(19)));
        progress.extended = Some((DaHeight(19), DaHeight(29)));
        assert_eq!(progress.up_to(&inclusion, Height(0), Height(9)), Height(4), "it has more grace");
        assert_eq!(progress.up_to(&inclusion, Height(0), Height(1)), Height(1), "a fork holds back more");
    }

    #[test]
    fn nothing_is_judged_below_a_block_that_was_seen_by_half() {
        let mut progress = Progress::new(EPOCHS, Height(0), None);
        let mut inclusion = seen(&[(2, 12)]);
        inclusion.saw(Lane::Data, Height(1), DaHeight(11), false);
        assert_eq!(progress.up_to(&inclusion, Height(0), Height(9)), Height(0));
        assert_eq!(progress.wanted, None);
    }

    #[test]
    fn after_a_restart_epochs_are_judged_again_that_may_have_had_more_grace() {
        let judged = |at| Progress::new(EPOCHS, Height(7), Some(DaHeight(at))).judged;
        assert_eq!([12, 34, 35].map(judged), [None, None, Some(DaHeight(14))]);
        assert_eq!(judged(44), Some(DaHeight(19)));
        let progress = Progress::new(EPOCHS, Height(7), Some(DaHeight(35)));
        assert_eq!(progress.due(DaHeight(36)).map(|epoch| epoch.end), Some(DaHeight(19)));
    }

    #[test]
    fn full_da_blocks_give_more_grace_as_in_ev_node() {
        assert_eq!(grace(0, 50), 1);
        assert_eq!(grace(FULL * 50, 50), 1);
        assert_eq!(grace((2 * FULL - 1) * 50, 50), 1);
        assert_eq!(grace(2 * FULL * 50, 50), 2);
        assert_eq!(grace(99 * FULL * 50, 50), 4);
        assert_eq!(grace(FULL, 0), 1);
    }
}
