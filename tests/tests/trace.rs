//! What a trace shows of a failover. In a process of its own: who else asked first for a span that
//! nobody wanted to see would decide that nobody does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use sim::{Cluster, cluster_run};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Subscriber, subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// A span: its name, its numbers, and the spans it is a part of or follows from.
#[derive(Clone, Debug, Default)]
struct Seen {
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

#[derive(Debug, Default)]
struct All {
    seen: Vec<Seen>,
    /// Where the spans that are open are; an id is used again when its span is closed.
    open: HashMap<Id, usize>,
}

/// Remembers every span.
#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<All>>);

impl Spans {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut seen = Seen { name: attributes.metadata().name(), ..Seen::default() };
        attributes.record(&mut seen);
        let mut all = self.all();
        let parent = context.span(id).and_then(|span| span.parent()).map(|parent| parent.id());
        seen.causes.extend(parent.and_then(|parent| all.open.get(&parent)).copied());
        all.seen.push(seen);
        let index = all.seen.len() - 1;
        all.open.insert(id.clone(), index);
    }

    fn on_record(&self, span: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut all = self.all();
        let index = all.open[span];
        values.record(&mut all.seen[index]);
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, _: Context<'_, S>) {
        let mut all = self.all();
        let (index, cause) = (all.open[span], all.open[follows]);
        all.seen[index].causes.push(cause);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.all().open.remove(&id);
    }
}

#[test]
fn every_block_of_a_term_belongs_to_the_trace_of_the_failover_that_began_it() {
    let spans = Spans::default();
    let seen = spans.clone();
    cluster_run(61, move |seed| {
        let _traced = subscriber::set_default(Registry::default().with(seen));
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
    let spans = &spans.all().seen;
    let blocks: Vec<&Seen> = spans.iter().filter(|span| span.name == "block").collect();
    assert!(blocks.len() > 20, "{} blocks", blocks.len());
    let mut terms = BTreeMap::<u64, usize>::new();
    for block in blocks {
        let term = block.numbers["term"];
        let failover = block.causes.iter().map(|cause| &spans[*cause]);
        let failover = failover.clone().find(|span| span.name == "failover");
        let failover = failover.unwrap_or_else(|| panic!("it belongs to no failover: {block:?}"));
        assert_eq!(failover.numbers.get("term"), Some(&term), "{block:?} of {failover:?}");
        *terms.entry(term).or_default() += 1;
    }
    assert!(terms.len() >= 3, "{terms:?}");
}
