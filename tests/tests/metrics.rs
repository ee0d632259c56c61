//! `/metrics` of a running node: valid to the last byte, and everything that the documentation
//! promises.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sim::process::{Follower, Footprint, Load, Scrape, Site};

/// Every name of a metric in the documentation; one that ends in `_` is the beginning of names.
fn documented(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("the documentation is here") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            documented(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(&path).expect("text");
            let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            let metric = |word: &&str| word.starts_with("evnode_") || word.starts_with("process_");
            found.extend(words.filter(metric).map(str::to_owned));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scraped_is_valid_complete_and_plausible() {
    let site = Site::new(&["--node.block_time", "50ms", "--da.block_time", "300ms"]).await;
    let node = site.start(&[]);
    // Valid from the first answer on, ready or not.
    site.until("an answer", || async { site.status().await.is_some() }).await;
    site.scrape().await;
    site.until("readiness", || async { site.unready().await.is_empty() }).await;
    let load = Load::start(&site.kv_url(), &site.oracle, 2, Duration::from_millis(5));
    site.until("transactions", || async { load.acknowledged() > 50 }).await;
    for _ in 0..20 {
        site.scrape().await;
    }
    load.stop().await;
    site.drain().await;
    let scrape = site.scrape().await;
    let all_of_this_chain =
        scrape.series().all(|(_, labels)| labels.get("chain_id").is_some_and(|id| id == "chaos"));
    assert!(all_of_this_chain, "a series without the chain's name");

    // Some things only a node that follows has.
    let mut follower = Follower::new(&site.home.genesis(), &site.da_url(), &[]).await;
    follower.start();
    follower.execute(site.height().await).await;
    let following = follower.metrics().await;
    let following = Scrape::parse(&following).unwrap_or_else(|wrong| panic!("not valid: {wrong}"));
    follower.terminate().await;

    let mut families = scrape.families();
    families.extend(following.families());
    let mut names = BTreeSet::new();
    documented(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs"), &mut names);
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let exists = families.iter().any(|family| match name.ends_with('_') {
            true => family.starts_with(&name),
            false => *family == name || name.strip_suffix("_total") == Some(family),
        });
        assert!(exists, "the documentation promises {name}");
    }

    // What is measured is what others see, too.
    let value = |name: &str| scrape.value(name).unwrap_or_else(|| panic!("{name} is missing"));
    let footprint = Footprint::of(node.pid());
    let memory = value("process_resident_memory_bytes");
    let seen = footprint.memory as f64;
    assert!((seen / 2.0..seen * 2.0).contains(&memory), "{memory} is measured, the kernel says {seen}");
    assert!((value("process_open_fds") - footprint.files as f64).abs() < 64.0);
    assert!(value("process_cpu_seconds_total") > 0.0 && value("process_threads") >= 2.0);
    assert!(value("evnode_sequencer_blocks_produced_total") <= site.height().await as f64);
    assert!(value("evnode_node_da_included_height") <= value("evnode_node_tip_height"));
    assert!(value("evnode_queue_accepted_total") > 50.0 && value("evnode_storage_fsyncs_total") > 10.0);
    assert_eq!(node.terminate().await, Some(0));
}
