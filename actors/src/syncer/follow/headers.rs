//! A light node's chain: headers enter one after the other, without bodies and without an engine.
//!
//! A header stands on the one before, is the proposer's, and time does not go back. Whether its
//! state root is right only those know who execute.

use std::sync::Arc;

use actix::Context;
use baton_messages::chain::SignedHeader;
use baton_messages::follow::Origin;
use baton_messages::types::{Hash, Term, Tip};
use baton_messages::wire::validate::NotNext;
use tracing::{debug, info, warn};

use super::super::{Syncer, rules};
use super::{Following, Source, Stop};

/// Headers that are written together.
const TOGETHER: usize = 256;

/// Headers that follow each other, and the tip, with where each came from.
struct Run {
    headers: Vec<(Arc<SignedHeader>, Hash)>,
    from: Vec<Origin>,
    tip: Tip,
}

impl Following {
    /// Headers are kept and no data.
    pub(super) const fn is_headers_only(&self) -> bool {
        self.record.headers_only
    }

    /// The proposer has signed two chains, and nothing here tells which one is right.
    const fn is_halted(&self) -> bool {
        self.is_headers_only() && self.forked_at.is_some()
    }

    /// The headers after the tip that are here and right.
    fn run(&mut self) -> Result<Run, Stop> {
        let reader = self.store.reader();
        let mut run = Run { headers: vec![], from: vec![], tip: reader.tip() };
        let mut next = self.next_height();
        while run.headers.len() < TOGETHER
            && self.candidates.settle(next)
            && let Some((signed, hash, from)) = self.candidates.header_of(next)
        {
            let header = &signed.header;
            match rules::next_header(reader.genesis(), &run.tip, header) {
                Ok(()) => {}
                // What stands on the tip goes first.
                Err(NotNext::Parent { .. }) if !run.headers.is_empty() => break,
                Err(not_next @ NotNext::Parent { .. }) => {
                    let (tip, reason) = (run.tip, not_next.to_string());
                    return Err(Stop::Parent { second: signed, from, tip, reason });
                }
                Err(not_next) => {
                    warn!(%not_next, height = next.0, %from, "a header is not the next one: dropped");
                    self.metrics.refuse("invalid");
                    self.candidates.reject(next);
                    break;
                }
            }
            run.tip = Tip { height: next, hash, time: header.time, term: Term(0) };
            run.headers.push((signed, hash));
            run.from.push(from);
            next = next.next();
        }
        Ok(run)
    }

    fn count(&self, run: &Run) {
        for ((signed, hash), from) in run.headers.iter().zip(&run.from) {
            let source = if from.da().is_some() { "da" } else { "p2p" };
            self.metrics.blocks.get_or_create(&Source { source }).inc();
            let height = signed.header.height.0;
            // How a catch-up goes is said as a whole.
            match self.catch_up.is_on() {
                true => debug!(height, %hash, %from, "followed a header"),
                false => info!(height, %hash, %from, "followed a header"),
            }
        }
    }

    /// Lets headers that follow the tip into the store, as many as belong together.
    fn take_headers(&mut self) -> Result<Option<Tip>, Stop> {
        let run = self.run()?;
        let Some((first, _)) = run.headers.first() else { return Ok(None) };
        if self.record.signer.pub_key.is_empty() {
            self.record.signer = first.signer.clone();
        }
        self.candidates.passed(run.tip.height);
        let record = self.note();
        let tip = self.writer.follow_headers(&run.headers, &record)?;
        self.count(&run);
        Ok(Some(tip))
    }
}

impl Syncer {
    /// Lets in every header that can enter now; on a node without an engine.
    pub(in crate::syncer) fn enter_headers(&mut self, ctx: &mut Context<Self>) {
        loop {
            let Some(follow) = &mut self.follow else { return };
            if follow.reopening || !follow.is_headers_only() {
                return;
            }
            if follow.is_halted() {
                return self.end_of_trouble();
            }
            match follow.take_headers() {
                Ok(Some(tip)) => follow.entered(tip, true),
                Ok(None) => return self.end_of_trouble(),
                Err(stop) => return self.end_entering(stop, ctx),
            }
        }
    }
}
