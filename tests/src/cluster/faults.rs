//! What can be done to single machines, their disks, engines and clocks, from outside.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::MailboxError;
use baton_actors::raft::Bootstrap;
use baton_actors::signer::guard::Guard;
use baton_actors::signer::slot::ChainId;
use baton_actors::supervisor::ByPart;
use baton_actors::supervisor::plan::Part;
use baton_messages::sequencer::{Receipt, SubmitError, SubmitTxs};
use baton_messages::supervisor::Shutdown;
use baton_messages::types::{Height, MemberId, Term, Tx};
use baton_storage::memory::Disk;
use baton_storage::raft_types::StoredMembership;

use super::{Cluster, Ground, Host, Notes, Rc, RefCell, address, name};
use crate::client::Ack;
use crate::da::Ledger;
use crate::engine::Script;
use crate::node::Machine;
use crate::power::Power;

/// Machines that are no members are numbered from here.
pub(super) const FIRST_GUEST: usize = 100;

/// What a node says to a transaction, or that it did not answer in time.
pub(crate) type Posted = Result<Result<Vec<Receipt>, SubmitError>, MailboxError>;

/// Whether a node has accepted a transaction, once it has answered.
pub(crate) type Accepting = Rc<RefCell<Option<bool>>>;

impl Cluster {
    /// From now on what happens is kept.
    pub(crate) fn notes(&mut self) -> &mut Notes {
        &mut self.checks.notes
    }

    pub(crate) fn host(&self, index: usize) -> Rc<Host> {
        self.hosts[index].clone()
    }

    pub(crate) fn is_up(&self, index: usize) -> bool {
        self.hosts[index].is_up()
    }

    /// A node does not run, or runs again (SIGSTOP, SIGCONT).
    pub(crate) fn freeze(&mut self, index: usize, frozen: bool) {
        if let Ground::Together(together) = &mut self.ground {
            together.sleep(index, frozen);
        }
    }

    /// A node's wall clock jumps.
    pub(crate) fn jump_clock(&mut self, index: usize, by_ms: i64) {
        self.hosts[index].jump(by_ms.saturating_mul(1_000_000));
    }

    /// Every clock is right.
    pub(crate) fn set_clocks(&mut self) {
        let elapsed = self.elapsed();
        for host in &self.hosts {
            host.set_clock(elapsed);
        }
    }

    /// What one node sends to another waits.
    pub(crate) fn hold(&self, from: usize, to: usize) {
        self.net.hold(&address(from), &address(to));
    }

    /// What waits arrives.
    pub(crate) fn release(&self, from: usize, to: usize) {
        self.net.release(&address(from), &address(to));
    }

    /// The links between some nodes and all others work again.
    pub(crate) fn rejoin(&self, away: &[usize]) {
        self.cut_from_peers(away, false);
        for inside in away {
            for outside in (0..self.hosts.len()).filter(|other| !away.contains(other)) {
                self.net.join(&address(*inside), &address(outside));
                self.net.join(&address(outside), &address(*inside));
            }
        }
    }

    /// Full nodes do not hear these members either, or hear them again.
    pub(super) fn cut_from_peers(&self, members: &[usize], cut: bool) {
        let Some(net) = self.plan.p2p.as_ref().filter(|_| self.plan.partitions_cut_peers) else { return };
        for member in members {
            net.set_away(&name(*member), cut);
        }
    }

    /// A one-way cut is over.
    pub(crate) fn rejoin_one_way(&self, from: usize, to: usize) {
        self.net.join(&address(from), &address(to));
    }

    /// A node does not reach DA, or does again; the others do as before.
    pub fn cut_da(&self, index: usize, cut: bool) {
        self.hosts[index].cut_da(cut);
    }

    /// Syncs of a node's disk do not return.
    pub fn hang_disk(&self, index: usize) {
        self.hosts[index].gate().hang();
    }

    /// Each sync of a node's disk takes so long; `None`: as usual.
    pub(crate) fn slow_disk(&self, index: usize, each: Option<Duration>) {
        self.hosts[index].gate().slow(each);
    }

    /// Syncs return again, also those that hang.
    pub fn release_disk(&mut self, index: usize) {
        let waiting = self.hosts[index].gate().release();
        if waiting.is_empty() {
            return;
        }
        drop(self.begin(index, move |_| async move {
            for go in waiting {
                go();
            }
        }));
    }

    /// How many syncs of a node have hung.
    pub(crate) fn hung(&self, index: usize) -> u64 {
        self.hosts[index].gate().hung()
    }

    /// Runs everybody until a time, or until something happened; checks every promise then.
    pub(crate) fn run_until(&mut self, until: Duration) {
        match &mut self.ground {
            Ground::Together(together) => {
                let reached = together.run(until);
                let now = u64::try_from(together.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.checks.notes.now_ms = now;
                if !reached {
                    self.checks.step(now, &self.hosts);
                    self.checks.full(self.full.as_deref(), &self.hosts);
                    self.checks.guests(&self.guests);
                }
            }
            Ground::Turmoil(_) => self.step(),
        }
    }

    /// These machines do not belong to the cluster any more: nothing is asked of what they hold.
    pub(crate) fn leave_out(&mut self, machines: BTreeSet<usize>) {
        self.left_out = machines;
    }

    /// Whether a node that runs belonged to the cluster once, as it knows: a newcomer that was given the log
    /// of before, and no word of itself, did not, and wants to.
    pub(crate) fn was_member(&self, index: usize) -> bool {
        let node = self.hosts[index].node();
        node.is_some_and(|node| node.reader().has_belonged() == Ok(true))
    }

    fn start_guest(&mut self, machine: Machine, bootstrap: Bootstrap, called: Option<usize>) -> usize {
        let index = FIRST_GUEST + self.guests.len();
        let host = self.make_host(index, machine, bootstrap);
        let host = Rc::new(match called {
            Some(called) => host.called(called),
            None => host,
        });
        host.prepare(Power::default());
        self.guests.insert(index, host.clone());
        if let Ground::Together(together) = &mut self.ground {
            together.start(index, super::host::live(host));
        }
        index
    }

    /// A copy of a node's disk, as it was before its life of now, runs beside it on another
    /// machine. `None`: there is no copy.
    pub(crate) fn start_twin(&mut self, index: usize) -> Option<usize> {
        let host = self.hosts[index].clone();
        let machine = host.machine().twin(host.image()?);
        let addresses = (0..self.hosts.len()).map(address).collect();
        // An empty one would be a new machine with an old name.
        let holds = machine.disk.holds_anything();
        holds.then(|| self.start_guest(machine, Bootstrap::Join(addresses), Some(index)))
    }

    /// A single node of its own with the key and the guard of another one. `None`: that guard is
    /// empty still.
    pub(crate) fn start_stray(&mut self, like: usize) -> Option<usize> {
        let model = self.hosts[like].machine();
        let chain = ChainId { name: model.genesis.chain_id.clone(), genesis: model.genesis.hash() };
        // A guard that holds no header yet protects nothing.
        Guard::open(&model.guard.slots(), &chain).ok()??.guarded()?;
        let machine = model.another(FIRST_GUEST + self.guests.len());
        machine.guard.replace(model.guard.slots());
        Some(self.start_guest(machine, Bootstrap::Sole, None))
    }

    /// A machine that is no member is switched off.
    pub(crate) fn end_guest(&mut self, index: usize) {
        let Some(host) = self.guests.get(&index).cloned().filter(|host| host.is_up()) else { return };
        self.checks.guests(&self.guests);
        host.ended();
        if let Ground::Together(together) = &mut self.ground {
            together.end(index);
        }
        self.net.gone(&address(index));
    }

    /// What a node's engine does, in a cluster whose plan says `observed`.
    #[must_use]
    pub fn script(&self, index: usize) -> Script {
        self.hosts[index].script().clone()
    }

    /// What a node's supervisor hears of leadership is late, and of several changes only the last
    /// arrives; or no longer.
    pub(crate) fn late_hints(&self, index: usize, late: bool) {
        self.hosts[index].late_hints(late);
    }

    /// The DA layer.
    pub(crate) fn ledger(&self) -> Ledger {
        self.hosts[0].with_machine(|machine| machine.ledger.clone())
    }

    /// The disk of a node that is down is replaced by another one.
    pub(crate) fn replace_disk(&mut self, index: usize, disk: Disk) {
        self.hosts[index].replace_disk(disk);
    }

    /// A node's disk is lost, or as good as that: nobody counts on what lay there any more.
    pub(crate) fn write_off(&mut self, index: usize) {
        let host = self.hosts[index].clone();
        self.checks.lost(host.storage());
        host.with_machine(|machine| machine.oracle.lost(index));
    }

    /// The node may find its store damaged, in any life from now on.
    pub fn expect_damage(&self, index: usize, expected: bool) {
        self.hosts[index].expect_damage(expected);
    }

    /// The newest term that a machine's guard knows, in the life it is in.
    pub(crate) fn signed_under(&self, index: usize) -> Term {
        self.checks.signed_under(&self.hosts[index])
    }

    /// Whether a running node is fit to lead, by what its supervisor says (P6).
    pub(crate) fn is_fit(&self, index: usize) -> bool {
        let Some(metrics) = self.hosts[index].metrics() else { return false };
        let ineligible = &metrics.supervisor.ineligible;
        !Part::ALL.into_iter().any(|part| {
            let gauge = ineligible.get(&ByPart { part: part.name() });
            // Nothing was said of it yet.
            gauge.is_none_or(|gauge| gauge.get() != 0)
        })
    }

    /// Whether it did not start because of that.
    pub(crate) fn refused_to_start(&self, index: usize) -> bool {
        self.hosts[index].refused_to_start()
    }

    /// The membership as whoever leads has applied it.
    pub(crate) fn membership(&self) -> Option<StoredMembership> {
        let leader = self.leader()?;
        Some(self.reader(leader).membership())
    }

    /// The number of the machine with this storage.
    pub(crate) fn index_of(&self, id: MemberId) -> Option<usize> {
        self.hosts.iter().find(|host| host.id() == id).map(|host| host.index())
    }

    /// The member that a machine is now.
    pub(crate) fn id_of(&self, index: usize) -> MemberId {
        self.hosts[index].id()
    }

    /// Whether every other voter that runs has met this life of a node, and holds durably what was
    /// decided last: then the cluster can do without its disk.
    pub(crate) fn can_spare(&self, index: usize) -> bool {
        let Some(membership) = self.membership() else { return false };
        let (storage, life) = (self.hosts[index].storage(), self.hosts[index].boot());
        let voters: BTreeSet<MemberId> = membership.membership().voter_ids().collect();
        // Of two, the other one could never take it out of the membership.
        if voters.len() < 3
            || !voters.contains(&self.id_of(index))
            || membership.membership().get_joint_config().len() > 1
        {
            return false;
        }
        voters.iter().filter(|id| **id != self.id_of(index)).all(|id| {
            let other = self.index_of(*id).map(|other| &self.hosts[other]);
            other.is_some_and(|other| {
                let seen = other.with_machine(|machine| {
                    let lives = machine.lives.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    lives.get(&storage).map(|life| life.boot)
                });
                other.is_up() && seen == Some(life) && self.checks.holds_decided(other)
            })
        })
    }

    /// The highest height that anybody applied, and the highest that anybody signed.
    pub(crate) fn reached_heights(&self) -> (Height, Height) {
        (self.checks.tip(), self.checks.signed())
    }

    /// A client hands a transaction in at a node. What it is told is remembered, and that it came
    /// after everything of the same sitting.
    pub(crate) fn hand_in(&mut self, index: usize, tx: Tx, sitting: Option<u64>) -> Accepting {
        let host = self.hosts[index].clone();
        let (oracle, power) = (host.with_machine(|machine| machine.oracle.clone()), host.power());
        oracle.attempt(&tx);
        let accepting: Accepting = Rc::default();
        let answer = accepting.clone();
        drop(self.begin(index, move |node| async move {
            let within = Duration::from_secs(2);
            let sequencer = &node.ports().sequencer;
            let submit = sequencer.submit_txs.send(SubmitTxs { txs: vec![tx.clone()] }).timeout(within);
            let accepted = match submit.await {
                _ if power.is_off() => false,
                Ok(Ok(receipts)) => {
                    match receipts[..] {
                        [Receipt::Queued(_)] => oracle.told_by(index, &tx, Ack::Accepted),
                        [Receipt::InChain(_, place)] => oracle.told_by(index, &tx, Ack::Committed(place)),
                        _ => panic!("one transaction, {} receipts", receipts.len()),
                    }
                    if let Some(sitting) = sitting {
                        oracle.sat(sitting, index, &tx);
                    }
                    true
                }
                Ok(Err(_)) | Err(_) => false,
            };
            *answer.borrow_mut() = Some(accepted);
            if accepted {
                super::await_commit(&node, &tx, &oracle, &power, index).await;
            }
        }));
        accepting
    }

    /// A client posts a transaction at a node, and nothing is remembered but that it was sent: the answer.
    pub(crate) fn post(&mut self, index: usize, tx: Tx) -> Rc<RefCell<Option<Posted>>> {
        self.machine(index).oracle.attempt(&tx);
        self.begin(index, move |node| async move {
            let submit = &node.ports().sequencer.submit_txs;
            submit.send(SubmitTxs { txs: vec![tx] }).timeout(Duration::from_secs(2)).await
        })
    }

    /// A node is told to stop, as by SIGTERM; the answer is there when it has.
    pub(crate) fn begin_shutdown(&mut self, index: usize) -> Rc<RefCell<Option<Result<(), MailboxError>>>> {
        self.begin(index, |node| async move {
            for part in &node.ports().shutdown {
                part.send(Shutdown).timeout(Duration::from_secs(10)).await?;
            }
            Ok(())
        })
    }
}
