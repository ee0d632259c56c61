//! Signatures that a snapshot has passed over.
//!
//! A signature comes in the log: in the entry of a block above, or as a record of its own. Who goes
//! on from a snapshot gets the earlier ones with the blocks it fetches. One that the giving member
//! had not applied yet comes neither way, and DA would wait for it on this member for ever (P7).

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use baton_messages::chain::{Header, SignedHeader};
use baton_messages::cluster::FetchBlocks;
use baton_messages::command::HeaderSignature;
use baton_messages::types::{Hash, Height};
use baton_storage::{Reader, StoreError};
use bytes::Bytes;
use tracing::{debug, info};

use super::Syncer;
use super::backfill::{Error, Source};

/// A signature this far above says that one was passed over.
const DEPTH: u64 = 64;

/// A height for which DA waits although its signature is in the log: signatures are recorded in
/// order, and one above it is here.
pub(super) fn passed_over(reader: &Reader) -> Result<Option<(Height, Hash)>, StoreError> {
    let (done, initial, tip) = (reader.da_progress(), reader.initial_height(), reader.tip().height);
    for done in [done.headers, done.data] {
        let height = done.next().max(initial);
        if height >= tip || reader.signature(height)?.is_some() {
            continue;
        }
        let mut above = height.next();
        while above <= tip && above.0 - height.0 <= DEPTH {
            if reader.signature(above)?.is_some() {
                return Ok(reader.hash(height)?.map(|hash| (height, hash)));
            }
            above = above.next();
        }
    }
    Ok(None)
}

/// Whether it is the signature of the chain's signer over a header. A witness knows the signer's
/// address only, and cannot tell.
pub(super) fn fits(source: &Source, header: &Header, signature: &Bytes) -> bool {
    if source.signer.pub_key.is_empty() {
        return true;
    }
    let signed =
        SignedHeader { header: header.clone(), signature: signature.clone(), signer: source.signer.clone() };
    signed.verify_signature().is_ok()
}

impl Syncer {
    /// Asks another member for a signature that was passed over, one at a time.
    pub(super) fn begin_mending(&mut self, ctx: &mut Context<Self>) {
        let Some(source) = self.links.source.clone() else { return };
        if self.mending || !self.config.executes {
            return;
        }
        let (height, hash) = match passed_over(&self.reader) {
            Ok(Some(passed_over)) => passed_over,
            Ok(None) => return,
            Err(error) => return debug!(%error, "whether a signature is missing is not known now"),
        };
        self.mending = true;
        self.mendings = self.mendings.wrapping_add(1);
        let (within, attempt) = (self.config.backfill.reply_within, self.mendings);
        let asked = FetchBlocks { from: height, hash, max_bytes: 1, down_to: height, attempt };
        let mended = async move {
            let blocks = source.fetch.send(asked).timeout(within).await??;
            let given =
                blocks.into_iter().find(|given| given.block.hash() == hash).ok_or(Error::Other(height))?;
            let Some(signature) = given.signature.filter(|it| fits(&source, given.block.header(), it)) else {
                return Err(Error::Unsigned(height));
            };
            Ok(source.filler.sign(&HeaderSignature { height, hash, signature }).await?)
        };
        ctx.spawn(mended.into_actor(self).map(move |mended: Result<(), Error>, this, ctx| {
            this.mending = false;
            match mended {
                Ok(()) => {
                    info!(height = height.0, "got a signature that a snapshot had passed over");
                    this.begin_mending(ctx);
                }
                Err(error) => debug!(%error, height = height.0, "a signature is missing"),
            }
        }));
    }
}
