//! Clients: each sends one transaction after another, and stays with a node while it answers.

use baton_messages::types::Tx;
use bytes::Bytes;

use super::draw::Chance;
use crate::cluster::{Accepting, Cluster};

/// How long a client waits before it goes to another node.
const PATIENCE_MS: u64 = 1_000;

struct Client {
    number: usize,
    node: Option<usize>,
    sitting: u64,
    sent: u64,
    waits: Option<(u64, Accepting)>,
    next_ms: u64,
    before: Option<Tx>,
}

/// All clients of a history.
pub(super) struct Clients {
    clients: Vec<Client>,
    every_ms: u64,
    sittings: u64,
}

impl Clients {
    pub(super) fn new(count: usize, every_ms: u64) -> Self {
        let client = |number| Client {
            number,
            node: None,
            sitting: 0,
            sent: 0,
            waits: None,
            next_ms: 0,
            before: None,
        };
        Self { clients: (0..count).map(client).collect(), every_ms: every_ms.max(1), sittings: 0 }
    }

    /// When somebody has something to do next.
    pub(super) fn next_ms(&self) -> u64 {
        self.clients.iter().map(|client| client.next_ms).min().unwrap_or(u64::MAX)
    }

    /// A node went down: who sat there goes elsewhere.
    pub(super) fn gone(&mut self, node: usize) {
        for client in self.clients.iter_mut().filter(|client| client.node == Some(node)) {
            client.node = None;
            client.waits = None;
        }
    }

    pub(super) fn step(&mut self, now_ms: u64, cluster: &mut Cluster, chance: &mut Chance) {
        let Self { clients, every_ms, sittings } = self;
        for client in clients.iter_mut().filter(|client| client.next_ms <= now_ms) {
            client.next_ms = now_ms + *every_ms;
            if let Some((since, answer)) = &client.waits {
                let accepted = *answer.borrow();
                match accepted {
                    Some(true) => {}
                    Some(false) => client.node = None,
                    None if now_ms - since < PATIENCE_MS => continue,
                    None => client.node = None,
                }
                client.waits = None;
            }
            if client.node.is_none() {
                let open: Vec<usize> =
                    cluster.up().filter(|index| !cluster.host(*index).is_witness()).collect();
                if open.is_empty() {
                    continue;
                }
                client.node = Some(open[chance.index(open.len())]);
                *sittings += 1;
                client.sitting = *sittings;
            }
            let Some(node) = client.node else { continue };
            if let Some(tx) = client.before.clone().filter(|_| chance.percent(5)) {
                // The same once more, wherever: it must not run twice (B5).
                cluster.machine(node).oracle.repeats(&tx);
                drop(cluster.hand_in(node, tx, None));
                continue;
            }
            client.sent += 1;
            let text = format!("c{}.{}=v{}", client.number, client.sent, now_ms);
            let tx = Tx(Bytes::from(text));
            client.before = Some(tx.clone());
            let answer = cluster.hand_in(node, tx, Some(client.sitting));
            client.waits = Some((now_ms, answer));
        }
    }
}
