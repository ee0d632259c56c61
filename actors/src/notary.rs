//! The notary keeps the guard level with the signatures that other members make.
//!
//! A member that follows signs nothing, and its guard would stay behind. The signatures are in the
//! log: once in a while the newest is shown to the signer, which checks it and moves the guard.
//! Where this member is the only voter it made all of them itself, and a guard that is behind is an
//! old copy; then nothing is shown (`docs/adr/0007-double-sign-guard.md`).

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, MailboxError, Recipient, WrapFuture};
use baton_messages::chain::{SignedHeader, Signer};
use baton_messages::signer::{NoteSigned, SignError};
use baton_messages::supervisor::IntegrityStop;
use baton_messages::types::Height;
use baton_storage::Reader;
use baton_storage::backend::StoreError;
use tracing::{debug, error, warn};

/// How the notary behaves.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How often the guard is moved: each time it is written and synced.
    pub interval: Duration,
    /// How long the signer may take.
    pub reply_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), reply_within: Duration::from_secs(5) }
    }
}

/// Everything the notary says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Moves the guard.
    pub note_signed: Recipient<NoteSigned>,
    /// Ends the process when a person is needed.
    pub integrity_stop: Recipient<IntegrityStop>,
}

/// So many heights below the tip the newest signature is looked for; more are never unsigned.
const DEPTH: u64 = 64;

/// The notary.
#[derive(Debug)]
pub struct Notary {
    config: Config,
    links: Links,
    reader: Reader,
    signer: Signer,
    /// Up to here the guard knows.
    noted: Height,
    busy: bool,
    /// The last failure in the log, so that it does not fill it.
    failed: Option<String>,
}

impl Notary {
    /// A notary for the chain that this signer signs.
    #[must_use]
    pub const fn new(config: Config, links: Links, reader: Reader, signer: Signer) -> Self {
        Self { config, links, reader, signer, noted: Height(0), busy: false, failed: None }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.busy || self.reader.is_sole_voter() {
            return;
        }
        match self.newest() {
            Ok(Some(signed)) => self.begin_note(signed, ctx),
            Ok(None) => {}
            Err(error) => self.warn(error.to_string()),
        }
    }

    /// The newest signed header that the guard does not know.
    fn newest(&self) -> Result<Option<SignedHeader>, StoreError> {
        let tip = self.reader.tip().height;
        let lowest = self.noted.next().max(Height(tip.0.saturating_sub(DEPTH)));
        let mut height = tip;
        while height >= lowest && height >= self.reader.initial_height() {
            if let Some(signed) = self.reader.signed_header(height, &self.signer)? {
                return Ok(Some(signed));
            }
            height = height.previous();
        }
        Ok(None)
    }

    fn begin_note(&mut self, signed: SignedHeader, ctx: &mut Context<Self>) {
        self.busy = true;
        let height = signed.header.height;
        let note = self.links.note_signed.send(NoteSigned { signed: Arc::new(signed) });
        let noted = note.timeout(self.config.reply_within).into_actor(self);
        ctx.spawn(noted.map(move |reply, this, _| this.end_note(height, reply)));
    }

    fn end_note(&mut self, height: Height, reply: Result<Result<(), SignError>, MailboxError>) {
        self.busy = false;
        match reply {
            Ok(Ok(())) => {
                debug!(height = height.0, "the guard follows");
                self.noted = height;
                self.failed = None;
            }
            Ok(Err(error @ (SignError::DoubleSign { .. } | SignError::Contradiction(_)))) => {
                error!(%error, "the guard holds another header than the chain");
                self.links.integrity_stop.do_send(IntegrityStop { reason: error.to_string() });
            }
            Ok(Err(error)) => self.warn(error.to_string()),
            Err(error) => self.warn(format!("no reply from the signer: {error}")),
        }
    }

    fn warn(&mut self, reason: String) {
        if self.failed.as_ref() != Some(&reason) {
            warn!(%reason, "the guard does not follow the chain");
            self.failed = Some(reason);
        }
    }
}

impl Actor for Notary {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(self.config.interval, Self::look);
    }
}
