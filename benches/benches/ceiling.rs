//! How close block production comes to its ceiling, 1/(commit + execute), and where the rest of a
//! block's time goes. Rate, commit and execution are of the same run, so their ratio does not
//! depend on the machine's speed alone.

use baton_benches::feed::Feed;
use baton_benches::node::{Node, Pace, Place};

/// So many transactions are put into the queue at the most; many blocks of few, few of many.
const IN_QUEUE: usize = 200_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let measured = arguments.any(|argument| argument == "--bench");
    let filters: Vec<String> = std::env::args().skip(1).filter(|text| !text.starts_with('-')).collect();
    let asked = filters.is_empty() || filters.iter().any(|filter| "ceiling".contains(filter.as_str()));
    if !asked || std::env::args().any(|argument| argument == "--list") {
        return;
    }
    println!("ceiling: share of 1/(commit + execute) reached, and each part's share of a block's time");
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "", "reached", "commit", "execute", "build", "between", "signing", "blocks/s"
    );
    for place in [Place::Memory, Place::Disk] {
        for txs in [1, 100, 1_000, 10_000] {
            report(place, txs, if measured { (IN_QUEUE / txs).min(500) } else { 2 });
        }
    }
}

fn report(place: Place, txs: usize, blocks: usize) {
    let node = Node::start(place, Pace { lazy: true, max_txs: txs });
    let mut feed = Feed::default();
    // Caches fill, files are made.
    let _warm = node.execute(feed.txs(2 * txs));
    let before = node.timings();
    let elapsed = node.execute(feed.txs(blocks * txs));
    let spent = node.timings() - before;
    // The first round may have begun a moment before the clock.
    let share = |seconds: f64| format!("{:.0}%", 100.0 * seconds.max(0.0) / elapsed.as_secs_f64());
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10.1}",
        format!("store={place} txs={txs}"),
        format!("{:.0}%", 100.0 * spent.rate(elapsed) / spent.ceiling()),
        share(spent.commit),
        share(spent.execution),
        share(spent.production - spent.commit - spent.execution),
        share(elapsed.as_secs_f64() - spent.production),
        share(spent.signing),
        spent.rate(elapsed),
    );
}
