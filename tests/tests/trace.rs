//! What a trace shows of a failover.

use std::cell::RefCell;
use std::collections::BTreeMap;

use sim::{Cluster, cluster_run};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A span: its name, its numbers, and the places of the spans it is a part of or follows from.
#[derive(Clone, Debug)]
struct Seen {
    id: Id,
    name: &'static str,
    numbers: BTreeMap<&'static str, u64>,
    causes: Vec<usize>,
}

impl Visit for Seen {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.numbers.insert(field.name(), value);
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

thread_local! {
    /// The spans of a thread that wants them.
    static SPANS: RefCell<Option<Vec<Seen>>> = const { RefCell::new(None) };
}

/// Remembers the spans of the thread that wants them.
struct OfThisThread;

/// The place of the newest span with this id: ids are used again.
fn place(spans: &[Seen], id: &Id) -> Option<usize> {
    spans.iter().rposition(|seen| seen.id == *id)
}

fn on(change: impl FnOnce(&mut Vec<Seen>)) {
    SPANS.with_borrow_mut(|spans| spans.as_mut().map(change));
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for OfThisThread {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        on(|spans| {
            let causes = attributes.parent().and_then(|parent| place(spans, parent)).into_iter().collect();
            let name = attributes.metadata().name();
            let mut seen = Seen { id: id.clone(), name, numbers: BTreeMap::new(), causes };
            attributes.record(&mut seen);
            spans.push(seen);
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        on(|spans| {
            if let Some(place) = place(spans, id) {
                values.record(&mut spans[place]);
            }
        });
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        on(|spans| {
            if let (Some(span), Some(cause)) = (place(spans, id), place(spans, follows)) {
                spans[span].causes.push(cause);
            }
        });
    }
}

#[test]
fn every_block_of_a_term_belongs_to_the_trace_of_the_failover_that_began_it() {
    let subscriber = tracing_subscriber::registry().with(OfThisThread);
    tracing::subscriber::set_global_default(subscriber).expect("no other test here sets one");
    let spans = cluster_run(61, |seed| {
        SPANS.set(Some(vec![]));
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
        SPANS.take().expect("it was set")
    });
    let blocks: Vec<&Seen> = spans.iter().filter(|span| span.name == "block").collect();
    assert!(blocks.len() > 20, "{} blocks", blocks.len());
    let mut terms = BTreeMap::<u64, usize>::new();
    for block in blocks {
        let term = block.numbers["term"];
        let failover = block.causes.iter().map(|cause| &spans[*cause]).find(|span| span.name == "failover");
        let failover = failover.unwrap_or_else(|| panic!("it belongs to no failover: {block:?}"));
        assert_eq!(failover.numbers.get("term"), Some(&term), "{block:?} of {failover:?}");
        *terms.entry(term).or_default() += 1;
    }
    assert!(terms.len() >= 3, "{terms:?}");
}
