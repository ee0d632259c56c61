//! Who may pass: what is known of this node, of its certificates and of the lives of others.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_actors::raft::transport::{Class, Names};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::cluster::conversation::Pulse;
use crate::cluster::hello::{Cause, Hello, Refusal, class_number};
use crate::cluster::lives::{self, Life, Lives, Seen};
use crate::cluster::metrics::Metrics;
use crate::cluster::refusals::Refusals;
use crate::cluster::tls::Tls;

/// A handshake waits no longer than this for the lives to be saved: a hanging disk keeps nobody out.
const SAVED_WITHIN: Duration = Duration::from_millis(500);
/// A life that was heard within this is alive: what claims to be a newer one is a copy. The
/// connections of a process that has ended are closed; those of a machine that has ended are silent.
const ALIVE: Duration = Duration::from_secs(1);

/// Who may pass.
pub(super) struct Gate {
    own: Hello,
    /// The cluster this node belongs to.
    pub(super) cluster: watch::Sender<Option<Uuid>>,
    /// `None`: plaintext between private addresses.
    pub(super) tls: Option<Tls>,
    pub(super) refusals: Refusals,
    pub(super) metrics: Metrics,
    /// Ends every connection.
    pub(super) closing: CancellationToken,
    lives: Arc<dyn Lives>,
    book: Mutex<Book>,
    /// What the membership calls a storage.
    names: Mutex<Option<Names>>,
    /// Held while lives are saved: an older state never overtakes a newer one.
    saving: Arc<tokio::sync::Mutex<()>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("own", &self.own).finish_non_exhaustive()
    }
}

/// The lives that were seen, and the connections of each storage.
#[derive(Debug, Default)]
struct Book {
    seen: Seen,
    open: BTreeMap<Uuid, Vec<Open>>,
    next: u64,
}

#[derive(Debug)]
struct Open {
    number: u64,
    run: Uuid,
    pulse: Arc<Pulse>,
    ended: CancellationToken,
}

impl Book {
    /// Whether this life may go on, given what was seen and who is connected. `true`: it is new.
    fn judge(&self, peer: &Hello) -> Result<bool, Refusal> {
        let is_new = lives::judge(&self.seen, peer)?;
        let Hello { name, storage, boot, run, .. } = peer;
        let others = self.open.get(storage).into_iter().flatten().filter(|open| open.run != *run);
        if others.into_iter().any(|open| open.pulse.quiet() < ALIVE) {
            let reason = format!(
                "{name} runs life {boot} of storage {storage} while an earlier life of it is connected and \
                 alive: a copied disk, or a machine put back to an earlier state; stop it and wipe it"
            );
            return Err(Refusal::new(Cause::Clone, reason));
        }
        Ok(is_new)
    }
}

/// The right to hold a connection; it ends when a newer life of the same storage comes.
#[derive(Debug)]
pub(super) struct Admission {
    gate: Arc<Gate>,
    storage: Uuid,
    number: u64,
    /// Cancelled when the connection must end.
    pub(super) ended: CancellationToken,
}

impl Admission {
    /// Why it was ended, when the other end is to blame.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let reason =
            "a newer life of its storage was seen: a copied or restored disk, or a process that was replaced";
        (!self.gate.closing.is_cancelled()).then(|| Refusal::new(Cause::OlderBoot, reason))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut book = self.gate.book();
        if let Some(open) = book.open.get_mut(&self.storage) {
            open.retain(|open| open.number != self.number);
            if open.is_empty() {
                book.open.remove(&self.storage);
            }
        }
    }
}

impl Gate {
    /// A gate for the node that says this hello.
    pub(super) fn new(
        own: Hello,
        tls: Option<Tls>,
        lives: Arc<dyn Lives>,
        refusals: Refusals,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let book = Mutex::new(Book { seen: lives.load()?, ..Book::default() });
        let cluster = watch::Sender::new(own.cluster);
        let closing = CancellationToken::new();
        Ok(Self {
            own,
            cluster,
            tls,
            refusals,
            metrics,
            closing,
            lives,
            book,
            names: Mutex::default(),
            saving: Arc::default(),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node says now.
    pub(super) fn hello(&self, class: Class) -> Hello {
        Hello { cluster: *self.cluster.borrow(), class: class_number(class), ..self.own.clone() }
    }

    /// Tells when the cluster is another than the hello said, also when it is already.
    pub(super) fn cluster_since(&self, said: Option<Uuid>) -> watch::Receiver<Option<Uuid>> {
        let mut cluster = self.cluster.subscribe();
        if *cluster.borrow() != said {
            cluster.mark_changed();
        }
        cluster
    }

    /// From now on names are compared with those of the membership.
    pub(super) fn know(&self, names: Option<Names>) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Whether this life could be admitted.
    pub(super) fn judge(&self, peer: &Hello) -> Result<(), Refusal> {
        self.compare_name(peer)?;
        self.make_room(peer.storage);
        self.book().judge(peer).map(drop)
    }

    /// Forgets storages that are neither members nor connected, when there are too many. Nobody
    /// is forgotten while it is not known who is a member.
    fn make_room(&self, storage: Uuid) {
        let Some(names) = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        if names(self.own.storage).is_none() {
            return;
        }
        let mut book = self.book();
        if book.seen.contains_key(&storage) || book.seen.len() < lives::MOST {
            return;
        }
        let Book { seen, open, .. } = &mut *book;
        seen.retain(|storage, _| open.contains_key(storage) || names(*storage).is_some());
    }

    /// A copy of a member's disk under a name of its own is no newer life of that member.
    fn compare_name(&self, peer: &Hello) -> Result<(), Refusal> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match names.and_then(|names| names(peer.storage)) {
            Some(known) if !known.eq_ignore_ascii_case(&peer.name) => {
                let reason = format!(
                    "storage {} is that of member {known}, and {} runs on it: a copied disk; wipe it and add \
                     the node anew",
                    peer.storage, peer.name
                );
                Err(Refusal::new(Cause::Clone, reason))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Admits a life, ends the connections of older ones and remembers it.
    pub(super) async fn admit(
        self: &Arc<Self>,
        peer: &Hello,
        pulse: &Arc<Pulse>,
    ) -> Result<Admission, Refusal> {
        self.compare_name(peer)?;
        self.make_room(peer.storage);
        let (admission, is_new) = self.enter(peer, pulse.clone())?;
        if is_new {
            self.save().await;
        }
        Ok(admission)
    }

    fn enter(self: &Arc<Self>, peer: &Hello, pulse: Arc<Pulse>) -> Result<(Admission, bool), Refusal> {
        let mut book = self.book();
        let is_new = book.judge(peer)?;
        if is_new {
            book.seen.insert(peer.storage, Life { boot: peer.boot, run: peer.run });
        }
        let (number, ended) = (book.next, self.closing.child_token());
        book.next += 1;
        let open = book.open.entry(peer.storage).or_default();
        for older in open.iter().filter(|open| open.run != peer.run) {
            info!(name = %peer.name, storage = %peer.storage, boot = peer.boot,
                "a member came back: ending a connection of its life before");
            older.ended.cancel();
        }
        open.push(Open { number, run: peer.run, pulse, ended: ended.clone() });
        let gate = Arc::clone(self);
        Ok((Admission { gate, storage: peer.storage, number, ended }, is_new))
    }

    /// Saves what was seen. What cannot be saved is known until the process ends.
    async fn save(self: &Arc<Self>) {
        let gate = Arc::clone(self);
        let saved = tokio::spawn(async move {
            let _turn = gate.saving.lock().await;
            let seen = gate.book().seen.clone();
            gate.lives.save(seen).await
        });
        let failed = match tokio::time::timeout(SAVED_WITHIN, saved).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not within {SAVED_WITHIN:?}"),
        };
        self.metrics.unsaved_lives.inc();
        warn!(
            reason = failed,
            "cannot save which lives of members were seen: after a restart an older one may pass"
        );
    }
}
