//! What must hold after every effect, over all nodes and all their lives.
//!
//! Only what changed is looked at. What was ever seen is kept: a promise about one height or one
//! term is about every node that ever lived.

mod followed;
mod log;
mod notes;

use std::collections::BTreeMap;
use std::rc::Rc;

use baton_actors::signer::audit::Event as Audit;
use baton_actors::signer::guard::Guard;
use baton_actors::signer::slot::{self, ChainId, Verdict};
use baton_messages::types::{Hash, Height, MemberId, Term};
use baton_storage::raft_types::Vote;

use super::full::Full;
use super::host::Host;
use crate::da::Posted;
use crate::history::{EventKind, Situation};

use followed::{Chain, Followed};
use log::{Logs, SeenLog};
pub(super) use notes::Notes;

/// Everything that was ever seen.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The block of each height that anybody applied.
    committed: BTreeMap<Height, Hash>,
    /// The header of each height that anybody signed.
    signed: BTreeMap<Height, Hash>,
    /// Who led each term.
    leaders: BTreeMap<u64, MemberId>,
    /// How far each node was looked at.
    seen: BTreeMap<usize, Seen>,
    logs: Logs,
    /// How much of what came onto DA was looked at.
    posted: usize,
    /// How much of what clients were told.
    told: usize,
    /// Proposals whose outcome nobody knew: the height, the term.
    unknown: Vec<(Height, u64)>,
    /// What was seen of the full node.
    followed: Followed,
    /// What happens, for who wants to know.
    pub(super) notes: Notes,
}

#[derive(Debug, Default)]
struct Seen {
    storage: uuid::Uuid,
    lives: u64,
    generation: u64,
    tip: Height,
    audited: usize,
    /// The newest term under which this machine's key signed.
    signed_under: Term,
    vote: Option<Vote>,
    leads: Option<u64>,
    led_until_ms: u64,
    granted: Option<u64>,
    log: SeenLog,
    included: Height,
    /// The highest height that this machine's engine has ever executed.
    executed: Height,
    snapshots: u64,
    members: Option<u64>,
    version: u8,
    alarms: usize,
    trouble: bool,
    counts: [u64; COUNTS],
}

/// How many counters of a node are looked at.
const COUNTS: usize = 4;

impl Checks {
    /// Looks at every host that runs.
    pub(super) fn step(&mut self, now_ms: u64, hosts: &[Rc<Host>]) {
        self.notes.now_ms = now_ms;
        for host in hosts.iter().filter(|host| host.is_up()) {
            self.life(host);
            // What a lost disk says is nothing that anybody counts on.
            if !self.logs.lost.contains(&host.id()) {
                self.votes(host, hosts);
                self.logs(host, hosts);
            }
            self.commits(host);
            self.executions(host);
            self.signatures(host, usize::MAX);
            self.alarms(host);
        }
        if let Some(host) = hosts.first() {
            self.outside(host, hosts);
        }
        if self.notes.is_on() {
            for host in hosts.iter().filter(|host| host.is_up()) {
                self.observe(host);
            }
        }
    }

    /// A12: who is no member makes no block and signs nothing.
    pub(super) fn guests(&mut self, guests: &BTreeMap<usize, Rc<Host>>) {
        for guest in guests.values().filter(|guest| guest.is_up()) {
            let signed = guest.with_machine(|machine| {
                machine.audit.since(0).iter().any(|line| matches!(line.event, Audit::Signed { .. }))
            });
            assert!(!signed, "A12: n{}, which is no member, signed a header", guest.index());
        }
    }

    /// Looks at the full node, if there is one that runs.
    pub(super) fn full(&mut self, full: Option<&Full>, hosts: &[Rc<Host>]) {
        let Some(full) = full.filter(|full| full.is_up()) else { return };
        let chain = Chain { committed: &self.committed, hosts };
        self.followed.step(full, &chain, &mut self.notes);
    }

    /// Looks at what the full node, which is down, has on its disk.
    pub(super) fn followed_chain(&self, full: &Full) {
        self.followed.rest(full, &self.committed);
    }

    /// The highest height that anybody applied.
    pub(super) fn tip(&self) -> Height {
        self.committed.last_key_value().map_or(Height(0), |(height, _)| *height)
    }

    /// The highest height whose header anybody signed.
    pub(super) fn signed(&self) -> Height {
        self.signed.last_key_value().map_or(Height(0), |(height, _)| *height)
    }

    /// The newest term that a machine's guard knows, in the life it is in, as far as that was looked at.
    pub(super) fn signed_under(&self, host: &Host) -> Term {
        let seen = self.seen.get(&host.index()).filter(|seen| seen.lives == host.lives());
        seen.map_or(Term(0), |seen| seen.signed_under)
    }

    /// Whether a member holds durably what was decided last.
    pub(super) fn holds_decided(&self, host: &Host) -> bool {
        self.logs.holds_decided(host)
    }

    /// A disk was lost: nobody knows what lay there.
    pub(super) fn lost(&mut self, storage: uuid::Uuid) {
        self.logs.lost.insert(MemberId::of(storage));
    }

    /// A new life, or a new identity, begins where its disk says.
    fn life(&mut self, host: &Host) {
        let Some(node) = host.node() else { return };
        if self.seen.get(&host.index()).is_some_and(|seen| seen.lives != host.lives()) {
            // What the life before signed last is its own, and what this one has signed already is not.
            self.commits(host);
            self.signatures(host, host.audited_before());
        }
        let seen = self.seen.entry(host.index()).or_default();
        let (storage, lives) = (host.storage(), host.lives());
        let generation = host.with_machine(|machine| machine.disk.generation());
        if seen.storage != storage {
            let (audited, signed_under, executed) = (seen.audited, seen.signed_under, seen.executed);
            *seen = Seen { storage, audited, signed_under, executed, ..Seen::default() };
        }
        if seen.lives != lives {
            seen.lives = lives;
            // The guard knows what its file says. A newer term under which it only gave a known signature
            // again has ended with the process, and with every producer that had an older one.
            seen.signed_under = host.with_machine(|machine| match slot::judge(&machine.guard.slots()) {
                Verdict::Rules { record, .. } => record.term,
                _ => Term(0),
            });
            seen.counts = [0; COUNTS];
            seen.snapshots = 0;
            seen.alarms = 0;
            seen.leads = None;
            seen.log.restarted();
            let boot = node.store().identity().boot;
            self.notes.note(Some(host.index()), || EventKind::Started { boot });
        }
        if seen.generation != generation {
            seen.generation = generation;
            seen.log.restarted();
        }
    }

    /// I10 and A8: what a member promised it keeps, and a term has one leader.
    fn votes(&mut self, host: &Host, hosts: &[Rc<Host>]) {
        let Some(vote) = host.vote() else { return };
        let index = host.index();
        let seen = self.seen.entry(index).or_default();
        if seen.vote == Some(vote) {
            return;
        }
        let (term, whom) = (vote.leader_id.term, vote.leader_id.voted_for);
        if let Some(before) = seen.vote {
            // Who has voted for somebody else follows whom the others elected in that term.
            let same = whom == before.leader_id.voted_for && vote.committed >= before.committed;
            let kept = term > before.leader_id.term
                || (term == before.leader_id.term && (same || (vote.committed && !before.committed)));
            assert!(kept, "I10: n{index} promised {before} and says {vote} now");
        }
        seen.vote = Some(vote);
        let candidate = hosts.iter().find(|host| host.id() == whom).map(|host| host.index());
        if !vote.committed {
            seen.leads = None;
            self.notes.note(Some(index), || EventKind::Voted { term, candidate });
            return;
        }
        let newest = self.leaders.last_key_value().map_or(0, |(term, _)| *term);
        let before = self.leaders.insert(term, whom);
        assert!(before.is_none_or(|before| before == whom), "A8: two leaders of term {term}");
        if host.id() != whom {
            self.notes.note(Some(index), || EventKind::Follows { term, leader: candidate });
            return;
        }
        if seen.leads == Some(term) {
            return;
        }
        if seen.led_until_ms > 0 && self.notes.now_ms - seen.led_until_ms < 100 {
            self.notes.reached(Situation::Flap);
        }
        seen.leads = Some(term);
        if term > newest {
            self.logs.complete(host);
        }
        // What its engine has executed is what it can build on.
        let executed = host.metrics().map_or(0, |metrics| metrics.engine.height.get());
        let reached = host.tip().height.0.min(u64::try_from(executed).unwrap_or_default());
        let tip = self.committed.last_key_value().map_or(0, |(tip, _)| tip.0);
        if !host.is_witness() && tip >= reached + 2 {
            self.notes.reached(Situation::LeaderBehind);
        }
        self.notes.note(Some(index), || EventKind::Leads { term });
    }

    fn logs(&mut self, host: &Host, hosts: &[Rc<Host>]) {
        let seen = self.seen.entry(host.index()).or_default();
        self.logs.step(host, hosts, &mut seen.log);
    }

    /// I2, I6: one block per height, whoever applies it, and each on top of the one before.
    fn commits(&mut self, host: &Host) {
        let Some(node) = host.node() else { return };
        let seen = self.seen.entry(host.index()).or_default();
        let tip = node.tip().height;
        if tip == seen.tip {
            return;
        }
        // After a crash what was applied and not synced is applied again.
        let mut height = if tip < seen.tip { tip } else { seen.tip.next() };
        while height <= tip {
            // A store whose power is off, or that goes on from a snapshot, does not have it all.
            if height > Height(0)
                && let Ok(Some(hash)) = node.reader().hash(height)
            {
                let before = self.committed.insert(height, hash);
                assert!(
                    before.is_none_or(|before| before == hash),
                    "I2: n{} applied {hash} at height {height}, another one {before:?}",
                    host.index()
                );
                let header = node.reader().header(height).ok().flatten();
                let below = self.committed.get(&height.previous());
                if let (Some(header), Some(below)) = (header, below) {
                    assert_eq!(header.last_header_hash, below.to_bytes(), "I6: the parent is linked");
                }
                if before.is_none() {
                    let term = node.tip().term.0;
                    self.notes.note(Some(host.index()), || {
                        let block = node.reader().block(height).ok().flatten();
                        let txs = block.map_or(0, |block| block.txs().len());
                        EventKind::Committed { height: height.0, term, hash: hash.to_string(), txs }
                    });
                    let notes = &mut self.notes;
                    self.unknown.retain(|(at, under)| {
                        if *at == height {
                            notes.reached(match *under == term {
                                true => Situation::UnknownCommitted,
                                false => Situation::UnknownNever,
                            });
                        }
                        *at != height
                    });
                }
            }
            height = height.next();
        }
        seen.tip = tip;
        self.notes.note(Some(host.index()), || EventKind::Applied { height: tip.0 });
    }

    /// How far a machine's engine has ever been, and B13: from which snapshot it goes on is durable
    /// before anybody is told that it does.
    fn executions(&mut self, host: &Host) {
        let Some(metrics) = host.metrics() else { return };
        let seen = self.seen.entry(host.index()).or_default();
        let executed = u64::try_from(metrics.engine.height.get()).unwrap_or_default();
        seen.executed = seen.executed.max(Height(executed));
        let snapshots = metrics.raft.snapshots_installed.get();
        if std::mem::replace(&mut seen.snapshots, snapshots) < snapshots {
            let covered = u64::try_from(metrics.raft.snapshot_index.get()).unwrap_or_default();
            let durable = host.with_machine(|machine| machine.disk.durably_applied());
            assert!(
                durable >= covered,
                "B13: n{} said that it goes on from a snapshot up to {covered}, and {durable} is durable",
                host.index()
            );
        }
    }

    /// I1, P2, I5, I11: one header per height is signed, only a committed one, under no older term
    /// than before, and after the guard says so on its disk. Looks at the lines of the audit up to a number.
    fn signatures(&mut self, host: &Host, up_to: usize) {
        let index = host.index();
        let seen = self.seen.entry(index).or_default();
        let mut lines = host.with_machine(|machine| machine.audit.since(seen.audited));
        lines.truncate(up_to.saturating_sub(seen.audited));
        seen.audited += lines.len();
        for line in lines {
            match line.event {
                Audit::Signed { height, hash, term } => {
                    let before = self.signed.insert(height, hash);
                    assert!(before.is_none_or(|before| before == hash), "I1: two headers of {height} signed");
                    let committed = self.committed.get(&height);
                    assert_eq!(
                        committed,
                        Some(&hash),
                        "P2: n{index} signed {hash} of height {height}, which is not what is committed"
                    );
                    assert!(term >= seen.signed_under, "I5: n{index} signed under {term} after a newer term");
                    seen.signed_under = term;
                    let guarded = host.with_machine(|machine| {
                        let (name, genesis) = (machine.genesis.chain_id.clone(), machine.genesis.hash());
                        Guard::open(&machine.guard.slots(), &ChainId { name, genesis })
                    });
                    let guarded = guarded.ok().flatten().and_then(|guard| guard.guarded());
                    assert!(
                        guarded.is_some_and(|(at, what)| at > height || (at == height && what == hash)),
                        "I11: n{index} signed {height} while its guard is at {guarded:?}"
                    );
                    self.notes.note(Some(index), || EventKind::Signed { height: height.0, term: term.0 });
                }
                Audit::Refused { what, reason, .. } => {
                    self.notes.reached(match reason.contains("is over") {
                        true => Situation::GuardFenced,
                        false => Situation::GuardRefused,
                    });
                    self.notes.note(Some(index), || EventKind::Refused {
                        by: "guard".to_owned(),
                        text: format!("{what}: {reason}"),
                    });
                }
                _ => {}
            }
        }
    }

    /// I3, I7, P3, P10: what is on DA is committed, signed, and executed by who posted it; and what
    /// clients were told is committed.
    fn outside(&mut self, host: &Host, hosts: &[Rc<Host>]) {
        let posted = host.with_machine(|machine| machine.ledger.posted_since(self.posted));
        self.posted += posted.len();
        for Posted { height, hash, poster } in &posted {
            let committed = self.committed.get(height);
            assert_eq!(committed, Some(hash), "I3: DA holds a header of {height} that is not committed");
            assert!(self.signed.contains_key(height), "I3: DA holds a header of {height} nobody signed");
            let Some(poster) = hosts.iter().find(|host| host.storage() == *poster) else { continue };
            let executed = self.seen.get(&poster.index()).map_or(Height(0), |seen| seen.executed);
            assert!(
                *height <= executed,
                "P10: n{} posted block {height}, and its engine was never beyond {executed}",
                poster.index()
            );
        }
        let told = host.with_machine(|machine| machine.oracle.places_since(self.told));
        self.told += told.len();
        for place in told {
            let committed = self.committed.get(&place.height);
            assert_eq!(
                committed,
                Some(&place.header_hash),
                "P3: a client was told of a block at {} that is not committed",
                place.height
            );
        }
        if let Some(last) = posted.last() {
            self.notes.note(None, || EventKind::Posted { height: last.height.0 });
        }
    }

    fn alarms(&mut self, host: &Host) {
        let Some(node) = host.node() else { return };
        let alarms = node.alarms();
        let seen = self.seen.entry(host.index()).or_default();
        if alarms.len() == seen.alarms {
            return;
        }
        for alarm in alarms.iter().skip(seen.alarms) {
            self.notes.note(Some(host.index()), || EventKind::Alarm { text: alarm.clone() });
        }
        seen.alarms = alarms.len();
        let allowed = node.announced_alarms();
        assert!(
            alarms.iter().all(|alarm| allowed.iter().any(|word| alarm.contains(word))),
            "n{} asks for a person: {alarms:?}",
            host.index()
        );
    }

    /// What is told of a node, and breaks nothing.
    fn observe(&mut self, host: &Host) {
        let (Some(node), Some(metrics)) = (host.node(), host.metrics()) else { return };
        let index = host.index();
        let seen = self.seen.entry(index).or_default();
        let vote = seen.vote.filter(|vote| vote.committed && vote.leader_id.voted_for == host.id());
        if seen.leads.is_some() && vote.is_none() {
            seen.leads = None;
        }
        if seen.leads.is_some() {
            seen.led_until_ms = self.notes.now_ms;
        }
        let granted = (metrics.supervisor.producing.get() == 1).then(|| seen.leads.unwrap_or_default());
        if granted != seen.granted {
            let before = std::mem::replace(&mut seen.granted, granted);
            self.notes.note(Some(index), || match (granted, before) {
                (Some(term), _) => EventKind::Granted { term },
                (None, term) => EventKind::GrantEnded { term: term.unwrap_or_default() },
            });
        }
        let counts = [
            metrics.executor.unknown.get(),
            metrics.raft.refused.get(),
            metrics.raft.fenced.get(),
            metrics.raft.snapshots_installed.get(),
        ];
        let before = std::mem::replace(&mut seen.counts, counts);
        if counts[0] > before[0] {
            self.unknown.push((node.tip().height.next(), seen.leads.unwrap_or_default()));
        }
        let height = node.tip().height.0;
        for (count, situation, event) in [
            (1, Situation::VerdictRefused, Some("verdict")),
            (2, Situation::ProposalRefused, Some("raft")),
            (3, Situation::SnapshotInstalled, None),
        ] {
            if counts[count] > before[count] {
                self.notes.reached(situation);
                self.notes.note(Some(index), || match event {
                    Some(by) => EventKind::Refused { by: by.to_owned(), text: situation.to_string() },
                    None => EventKind::Installed { height },
                });
            }
        }
        let included = node.reader().da_progress().included;
        if included > seen.included {
            seen.included = included;
            self.notes.note(Some(index), || EventKind::Included { height: included.0 });
        }
        let members = node.reader().membership().log_id().map(|log| log.index);
        if members != seen.members {
            if seen.members.is_some() {
                self.notes.reached(Situation::MembersChanged);
            }
            seen.members = members;
        }
        let version = node.reader().command_version();
        if version != seen.version {
            if seen.version > 0 {
                self.notes.reached(Situation::VersionRaised);
            }
            seen.version = version;
        }
        let trouble = node.trouble();
        if trouble.is_some() != seen.trouble {
            seen.trouble = trouble.is_some();
            self.notes.note(Some(index), || EventKind::Trouble { text: trouble });
        }
    }
}
