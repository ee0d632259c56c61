//! What a trace shows of a failover.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sim::{Cluster, cluster_run};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A span: its name, its numbers, and the spans it is a part of or follows from.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    numbers: BTreeMap<&'static str, u64>,
    causes: Vec<u64>,
}

impl Visit for Seen {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.numbers.insert(field.name(), value);
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Remembers every span.
#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.0.lock().expect("nobody panics with it")
    }

    fn with(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        let index = usize::try_from(id.into_u64()).expect("small") - 1;
        change(&mut self.all()[index]);
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut seen = Seen { name: attributes.metadata().name(), ..Seen::default() };
        attributes.record(&mut seen);
        seen.causes.extend(attributes.parent().map(Id::into_u64));
        let mut all = self.all();
        all.push(seen);
        Id::from_u64(all.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.with(span, |seen| values.record(seen));
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.with(span, |seen| seen.causes.push(follows.into_u64()));
    }

    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn every_block_of_a_term_belongs_to_the_trace_of_the_failover_that_began_it() {
    let spans = Spans::default();
    let seen = spans.clone();
    cluster_run(61, move |seed| {
        let _traced = tracing::subscriber::set_default(seen);
        let mut cluster = Cluster::start(3, seed);
        cluster.reach_everywhere(5);
        for _ in 0..2 {
            let leader = cluster.wait_for_leader();
            cluster.kill(leader);
            let height = cluster.heights().into_iter().max().expect("three").0;
            cluster.reach(height + 10);
            cluster.restart(leader);
        }
        cluster.come_to_rest();
    });
    let spans = spans.all();
    let blocks: Vec<&Seen> = spans.iter().filter(|span| span.name == "block").collect();
    assert!(blocks.len() > 20, "{} blocks", blocks.len());
    let mut terms = BTreeMap::<u64, usize>::new();
    for block in blocks {
        let term = block.numbers["term"];
        let failover = block.causes.iter().map(|id| &spans[usize::try_from(*id).expect("small") - 1]);
        let failover = failover.clone().find(|span| span.name == "failover");
        let failover = failover.unwrap_or_else(|| panic!("it belongs to no failover: {block:?}"));
        assert_eq!(failover.numbers.get("term"), Some(&term), "{block:?} of {failover:?}");
        *terms.entry(term).or_default() += 1;
    }
    assert!(terms.len() >= 3, "{terms:?}");
}
