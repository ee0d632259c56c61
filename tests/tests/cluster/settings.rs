//! Settings in which members must agree, while they do not.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use baton_messages::cluster::HandOff;
use baton_messages::supervisor::DiskHealthChanged;
use baton_messages::types::Hash;
use sim::{Cluster, ClusterPlan, cluster_run, listed_seeds, name};

const OLD: &[u8] = b"old";
const NEW: &[u8] = b"new";

/// What is in the configuration file of each machine.
type Files = Rc<RefCell<Vec<Hash>>>;

fn cluster(seed: u64, witness: Option<usize>, files: &Files) -> Cluster {
    let files = files.clone();
    let adjust = move |index: usize, wiring: &mut baton::wiring::Wiring| {
        wiring.settings.supervisor.settings = files.borrow()[index];
    };
    let plan = ClusterPlan { witness, adjust: Some(Rc::new(adjust)), ..ClusterPlan::default() };
    Cluster::start_with(3, seed, plan)
}

fn fill_disk(cluster: &mut Cluster, index: usize) {
    let asked = cluster.ask(index, |node| async move {
        for port in &node.ports().disk {
            port.do_send(DiskHealthChanged { trouble: Some("scripted".to_owned()) });
        }
    });
    assert!(asked.is_some());
}

/// A witness needs no namespaces: what it would hash is not the others' settings.
#[test]
fn a_witness_without_settings_leads_only_until_somebody_has_its_entries() {
    listed_seeds("a_witness_without_settings_leads_only_until_somebody_has_its_entries", 6, |seed| {
        cluster_run(seed, |seed| {
            let witness = 2;
            let files = Files::new(RefCell::new(vec![Hash::of(OLD), Hash::of(OLD), Hash::of(b"none")]));
            let mut cluster = cluster(seed, Some(witness), &files);
            cluster.reach_everywhere(5);
            cluster.until("a leader that produces", |cluster| {
                cluster.leader().is_some_and(|leader| leader != witness)
            });
            let leader = cluster.leader().expect("somebody");
            let other = 1 - leader;
            // What is committed now is on the leader and on the witness.
            cluster.partition(&[other]);
            let before = cluster.reader(leader).tip().height.0;
            cluster.reach(before + 5);
            cluster.kill(leader);
            cluster.heal();
            let since = cluster.elapsed();
            cluster.reach(before + 15);
            let took = cluster.elapsed() - since;
            assert!(took < Duration::from_secs(4), "P6: it took {took:?}");
            assert_eq!(cluster.leader(), Some(other));
            let view = cluster.ask(other, |node| async move { node.supervisor().await }).expect("up");
            assert_eq!(view.eligibility.reasons, [""; 0]);
            cluster.restart(leader);
            cluster.reach_everywhere(before + 25);
            // Who leads may give it to the other: a witness has no say in what their settings are.
            let asked = HandOff { to: Some(name(leader)), reason: "scripted".to_owned() };
            let answer = cluster.ask(other, move |node| async move {
                node.ports().hand_off.send(asked).timeout(Duration::from_secs(20)).await
            });
            assert!(matches!(answer, Some(Ok(Ok(_)))), "{answer:?}");
            cluster.come_to_rest();
        });
    });
}

/// Two of three have the new settings when the last one, which leads, is not fit any more.
#[test]
fn a_leader_that_cannot_produce_is_succeeded_half_way_through_a_change_of_settings() {
    listed_seeds(
        "a_leader_that_cannot_produce_is_succeeded_half_way_through_a_change_of_settings",
        6,
        |seed| {
            cluster_run(seed, |seed| {
                let files = Files::new(RefCell::new(vec![Hash::of(OLD); 3]));
                let mut cluster = cluster(seed, None, &files);
                cluster.reach_everywhere(5);
                let last = cluster.wait_for_leader();
                for index in (0..3).filter(|index| *index != last) {
                    files.borrow_mut()[index] = Hash::of(NEW);
                    cluster.kill(index);
                    cluster.restart(index);
                    let height = cluster.reader(last).tip().height.0;
                    cluster.reach_everywhere(height + 10);
                }
                assert_eq!(cluster.leader(), Some(last), "the leader is changed last");
                let before = cluster.reader(last).tip().height.0;
                fill_disk(&mut cluster, last);
                let since = cluster.elapsed();
                cluster.reach(before + 10);
                let took = cluster.elapsed() - since;
                assert!(took < Duration::from_secs(3), "L3: it took {took:?}");
                let next = cluster.wait_for_leader();
                assert_ne!(next, last);
                let view = cluster.ask(next, |node| async move { node.supervisor().await }).expect("up");
                assert_eq!(view.eligibility.reasons, [""; 0], "its settings are the leader's now");
                files.borrow_mut()[last] = Hash::of(NEW);
                cluster.kill(last);
                cluster.restart(last);
                cluster.come_to_rest();
            });
        },
    );
}
