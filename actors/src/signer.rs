//! The signer puts the one key's name under what the cluster has committed.
//!
//! Its guard is on disk before a signature exists (P2): after any crash the same header gets
//! the same signature, and no other header of that height gets one. Signing and syncing block,
//! so it has an arbiter of its own.

pub mod audit;
pub mod files;
pub mod guard;
mod guard_file;
mod guard_memory;
pub mod key;
pub mod key_file;
mod metrics;
pub mod slot;

use std::fmt;
use std::sync::Arc;

use actix::{Actor, Context, Handler, MessageResult};
use baton_messages::chain::{self, Block, Header, SignedHeader};
use baton_messages::mutation::{Mutation, planted};
use baton_messages::signer::{
    CheckGuard, GetSignerView, NoteSigned, SignData, SignEnvelope, SignError, SignHeader, SignerView,
};
use baton_messages::types::{Grant, Hash, Height, Timestamp};
use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use tokio::time::Instant;
use tracing::{error, info, warn};

use audit::{Audit, Event, Line};
use guard::{Decision, Guard, GuardStore, Progress, Refusal};
pub use guard_file::FileGuard;
pub use guard_memory::{Effects, MemoryGuard};
use key::Key;
pub use metrics::Metrics;
use slot::{ChainId, Record};

/// Which chain is signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The chain and its genesis.
    pub chain: ChainId,
    /// The height of the first block.
    pub initial_height: Height,
}

/// What the signer works with.
pub struct Parts {
    /// The key.
    pub key: Box<dyn Key>,
    /// Where the guard is.
    pub guard: Box<dyn GuardStore>,
    /// Where the record goes.
    pub audit: Box<dyn Audit>,
    /// The wall clock, for the record.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Its counters.
    pub metrics: Metrics,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("guard", &self.guard.place()).finish_non_exhaustive()
    }
}

/// The actor.
#[derive(Debug)]
pub struct Signer {
    config: Config,
    parts: Parts,
    identity: chain::Signer,
    verifier: Option<VerifyingKey>,
    /// What the slots hold, once they could be read.
    guard: Option<Guard>,
    /// Why nothing is signed.
    refusal: Option<String>,
    /// Signatures and blocks from the log may make it right: the guard was behind, or the store.
    heals: bool,
    /// What the guard was last compared with.
    progress: Progress,
    /// The last refusal in the record, so that asking again and again does not fill the disk.
    last_refused: Option<(Height, SignError)>,
}

impl Signer {
    /// Opens the guard and compares it with the chain; makes it when the chain has no block.
    ///
    /// A guard that cannot be relied on does not stop the node: the signer starts, refuses to
    /// sign and says why (`SignerView::refusal`).
    #[must_use]
    pub fn open(config: Config, parts: Parts, progress: &Progress) -> Self {
        let public = parts.key.public();
        let identity = chain::Signer::ed25519(&public);
        let verifier = VerifyingKey::from_bytes(&public).ok();
        let mut signer = Self {
            config,
            parts,
            identity,
            verifier,
            guard: None,
            refusal: None,
            heals: false,
            progress: *progress,
            last_refused: None,
        };
        if let Err(error) = signer.check(progress) {
            error!(%error, "nothing will be signed");
        }
        signer
    }

    fn check(&mut self, progress: &Progress) -> Result<(), SignError> {
        self.progress = *progress;
        let height = self.open_guard(progress).map(|guard| guard.record().height);
        let place = self.parts.guard.place();
        let checked = match height {
            Ok(height) => {
                info!(height = height.0, guard = place, "the guard is in order");
                Ok(())
            }
            Err(error) => {
                let reason = format!("{place}: {error}");
                self.refusal = Some(reason.clone());
                let heals =
                    |refusal: &Refusal| matches!(refusal, Refusal::Older { .. } | Refusal::Ahead { .. });
                self.heals = error.downcast_ref().is_some_and(heals);
                let contradicts = |refusal: &Refusal| {
                    matches!(refusal, Refusal::Contradiction { .. } | Refusal::OtherChain { .. })
                };
                match error.downcast_ref().is_some_and(contradicts) {
                    true => Err(SignError::Contradiction(reason)),
                    false => Err(SignError::Refused(reason)),
                }
            }
        };
        if checked.is_ok() {
            self.refusal = None;
        }
        self.parts.metrics.refusing.set(i64::from(self.refusal.is_some()));
        checked
    }

    fn open_guard(&mut self, progress: &Progress) -> Result<&Guard, Box<dyn std::error::Error>> {
        if self.guard.is_none() {
            let slots = self.parts.guard.read()?;
            self.guard = match Guard::open(&slots, &self.config.chain)? {
                Some(guard) => Some(guard),
                None if progress.last_block > Height(0) => {
                    return Err(Refusal::Missing(progress.last_block).into());
                }
                None => Some(self.create_guard()?),
            };
        }
        let guard = self.guard.as_ref().expect("it was just opened");
        guard.check(progress)?;
        Ok(guard)
    }

    fn create_guard(&mut self) -> Result<Guard, Box<dyn std::error::Error>> {
        let guard = Guard::new(&self.config.chain, self.config.initial_height)?;
        self.record(Event::GuardCreated { height: guard.record().height })?;
        self.parts.guard.create(&guard.record().encode())?;
        Ok(guard)
    }

    fn guard(&mut self) -> Result<&mut Guard, SignError> {
        match (&self.refusal, &mut self.guard) {
            (None, Some(guard)) => Ok(guard),
            (reason, _) => {
                Err(SignError::Refused(reason.clone().unwrap_or_else(|| "the guard is not open".into())))
            }
        }
    }

    fn sign_header(&mut self, grant: Grant, block: &Block) -> Result<Bytes, SignError> {
        let (header, height, hash) = (block.header(), block.height(), block.hash());
        self.expect_own(header)?;
        if header.hash() != hash {
            return Err(SignError::Invalid(format!("block {hash} has another header")));
        }
        if self.refusal.is_some() && height > self.progress.last_block {
            // After a crash the store may have been behind what its log holds. This block is
            // committed, so it has caught up this far.
            self.check(&Progress { last_block: height, ..self.progress })?;
        }
        let mut late = None;
        match self.guard()?.authorize(grant, height, hash, &header.last_header_hash) {
            Decision::Guard(record) if planted(Mutation::GuardAfterSignature) => late = Some(record),
            Decision::Guard(record) => {
                fail::fail_point!("signer.before_guard");
                self.write_guard(*record)?;
                fail::fail_point!("signer.after_guard_before_sign");
            }
            Decision::Sign => {}
            Decision::AlreadySigned(signature) => return Ok(signature),
            Decision::Refuse(reason) => return Err(reason),
        }
        let signature = self.sign(&header.encode())?;
        fail::fail_point!("signer.before_audit");
        // A signature that is not in the record does not leave; asked again it is made again.
        self.record(Event::Signed { height, hash, term: grant.term })?;
        fail::fail_point!("signer.after_audit");
        if let Some(record) = late {
            self.write_guard(*record)?;
        }
        self.guard()?.signed(signature.clone());
        self.parts.metrics.signed.inc();
        Ok(signature)
    }

    fn write_guard(&mut self, record: Record) -> Result<(), SignError> {
        let begun = Instant::now();
        let mut written = self.parts.guard.write(record.slot(), &record.encode());
        if !planted(Mutation::GuardWithoutSync) {
            written = written.and_then(|()| self.parts.guard.sync());
        }
        written.map_err(|error| SignError::Guard(error.to_string()))?;
        self.parts.metrics.guard_write.observe(begun.elapsed().as_secs_f64());
        self.guard()?.written(record);
        Ok(())
    }

    fn note_signed(&mut self, signed: &SignedHeader) -> Result<(), SignError> {
        let (height, hash) = (signed.header.height, signed.header.hash());
        self.expect_own_signature(signed)?;
        if self.refusal.is_some() && self.heals {
            // The chain goes up to this header at least, and whoever signed it was not this member
            // alone: being behind is no sign of an old copy.
            let last_block = self.progress.last_block.max(height);
            self.check(&Progress { last_block, last_signed: None })?;
        }
        if let Some(record) = self.guard()?.note(height, hash, &signed.signature)? {
            self.write_guard(record)?;
            self.record(Event::Noted { height, hash })?;
        }
        Ok(())
    }

    fn sign_envelope(&mut self, signed: &SignedHeader) -> Result<Bytes, SignError> {
        self.expect_own_signature(signed)?;
        self.expect_guarded(signed.header.height, signed.header.hash())?;
        self.sign(&signed.encode())
    }

    fn sign_data(&mut self, block: &Block) -> Result<Bytes, SignError> {
        let (header, data) = (block.header(), block.data());
        self.expect_own(header)?;
        if header.data_hash != data.commitment().0.as_slice() {
            return Err(SignError::Invalid(format!("the data is not that of header {}", block.hash())));
        }
        let told = data.metadata.as_ref().map(|said| (said.chain_id.as_str(), said.height, said.time));
        if told != Some((header.chain_id.as_str(), header.height, header.time)) {
            return Err(SignError::Invalid(format!("the metadata is not that of header {}", block.hash())));
        }
        self.expect_guarded(block.height(), block.hash())?;
        self.sign(&data.encode())
    }

    fn expect_own(&self, header: &Header) -> Result<(), SignError> {
        if header.chain_id != self.config.chain.name {
            let (theirs, ours) = (&header.chain_id, &self.config.chain.name);
            return Err(SignError::Invalid(format!("the header is of chain {theirs:?}, not {ours:?}")));
        }
        if header.proposer_address != self.identity.address {
            let (theirs, ours) = (hex::encode(&header.proposer_address), hex::encode(&self.identity.address));
            return Err(SignError::Invalid(format!(
                "the proposer is {theirs}, this key's address is {ours}"
            )));
        }
        Ok(())
    }

    fn expect_own_signature(&self, signed: &SignedHeader) -> Result<(), SignError> {
        self.expect_own(&signed.header)?;
        if signed.signer != self.identity {
            return Err(SignError::Invalid("the header names another signer".into()));
        }
        if !self.verifies(&signed.header.encode(), &signed.signature) {
            return Err(SignError::Invalid("the header's signature is not by this key".into()));
        }
        Ok(())
    }

    /// Of heights below its own the guard keeps no hash. An envelope proves its header by the signature
    /// of this key; data are asked for only where such a header is committed, and must be what it says.
    fn expect_guarded(&mut self, height: Height, hash: Hash) -> Result<(), SignError> {
        let guard = self.guard()?.record();
        if height > guard.height {
            return Err(SignError::NotFollowed { asked: height, guarded: guard.height });
        }
        if height == guard.height && hash != guard.hash {
            return Err(SignError::DoubleSign { height, guarded: guard.hash, asked: hash });
        }
        Ok(())
    }

    fn sign(&self, payload: &[u8]) -> Result<Bytes, SignError> {
        let signature = self.parts.key.sign(payload).map_err(|error| SignError::Key(error.to_string()))?;
        if !self.verifies(payload, &signature) {
            return Err(SignError::Key("it made a signature that does not verify".into()));
        }
        Ok(signature)
    }

    fn verifies(&self, payload: &[u8], signature: &[u8]) -> bool {
        let (Some(verifier), Ok(signature)) = (&self.verifier, Signature::from_slice(signature)) else {
            return false;
        };
        verifier.verify_strict(payload, &signature).is_ok()
    }

    fn record(&mut self, event: Event) -> Result<(), SignError> {
        let line = Line { time: (self.parts.now)(), event };
        self.parts.audit.record(&line).map_err(|error| SignError::Guard(error.to_string()))
    }

    /// Passes an answer on; a refusal is counted, logged and recorded.
    fn answer<T>(
        &mut self,
        what: &'static str,
        height: Height,
        hash: Hash,
        answer: Result<T, SignError>,
    ) -> Result<T, SignError> {
        let Err(reason) = &answer else {
            self.last_refused = None;
            return answer;
        };
        // A new leader's DA submitter may ask before the executor had the guard compared.
        if matches!(reason, SignError::NotFollowed { .. }) {
            return answer;
        }
        self.parts.metrics.refused.inc();
        let refused = Some((height, reason.clone()));
        if self.last_refused != refused {
            self.last_refused = refused;
            warn!(what, height = height.0, %hash, %reason, "refused to sign");
            let event = Event::Refused { what: what.into(), height, hash, reason: reason.to_string() };
            if let Err(error) = self.record(event) {
                warn!(%error, "the refusal is not in the record");
            }
        }
        answer
    }

    fn view(&self) -> SignerView {
        let guarded = self.guard.as_ref().and_then(Guard::guarded);
        SignerView { signer: self.identity.clone(), guarded, refusal: self.refusal.clone() }
    }
}

impl Actor for Signer {
    type Context = Context<Self>;
}

impl Handler<SignHeader> for Signer {
    type Result = Result<Bytes, SignError>;

    fn handle(&mut self, asked: SignHeader, _: &mut Context<Self>) -> Self::Result {
        let answer = self.sign_header(asked.grant, &asked.block);
        self.answer("header", asked.block.height(), asked.block.hash(), answer)
    }
}

impl Handler<SignEnvelope> for Signer {
    type Result = Result<Bytes, SignError>;

    fn handle(&mut self, asked: SignEnvelope, _: &mut Context<Self>) -> Self::Result {
        let answer = self.sign_envelope(&asked.signed);
        self.answer("envelope", asked.signed.header.height, asked.signed.header.hash(), answer)
    }
}

impl Handler<SignData> for Signer {
    type Result = Result<Bytes, SignError>;

    fn handle(&mut self, asked: SignData, _: &mut Context<Self>) -> Self::Result {
        let answer = self.sign_data(&asked.block);
        self.answer("data", asked.block.height(), asked.block.hash(), answer)
    }
}

impl Handler<NoteSigned> for Signer {
    type Result = Result<(), SignError>;

    fn handle(&mut self, asked: NoteSigned, _: &mut Context<Self>) -> Self::Result {
        let answer = self.note_signed(&asked.signed);
        self.answer("note", asked.signed.header.height, asked.signed.header.hash(), answer)
    }
}

impl Handler<CheckGuard> for Signer {
    type Result = Result<(), SignError>;

    fn handle(&mut self, asked: CheckGuard, _: &mut Context<Self>) -> Self::Result {
        self.check(&Progress { last_block: asked.last_block, last_signed: asked.last_signed })
    }
}

impl Handler<GetSignerView> for Signer {
    type Result = MessageResult<GetSignerView>;

    fn handle(&mut self, _: GetSignerView, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.view())
    }
}

#[cfg(test)]
mod tests;
