//! The notary among probes.

use super::*;

/// A notary of this stage, what the signer heard, and who hears when a person is needed.
fn notary(
    stage: &Stage,
    answer: impl FnMut(&NoteSigned) -> Result<(), SignError> + 'static,
) -> (Probe<NoteSigned>, Probe<IntegrityStop>) {
    let (note_signed, noted) = probe(answer);
    let (integrity_stop, alarms) = probe(|_: &IntegrityStop| ());
    let links = notary::Links { note_signed, integrity_stop };
    Notary::new(notary::Config::default(), links, stage.reader(), stage.signer()).start();
    (noted, alarms)
}

fn heights(noted: &Probe<NoteSigned>) -> Vec<u64> {
    noted.take().iter().map(|asked| asked.signed.header.height.0).collect()
}

#[test]
fn the_guard_follows_the_newest_signature_once_per_second() {
    sim_run(1, || async {
        let stage = Stage::new();
        let (noted, _) = notary(&stage, |_| Ok(()));
        for height in 1..=50 {
            stage.grow(1);
            stage.sign(height);
            pass(100).await;
        }
        let heights = heights(&noted);
        assert!((4..=5).contains(&heights.len()), "one sync per second: {heights:?}");
        assert!(heights.is_sorted_by(|earlier, later| earlier < later), "{heights:?}");
        pass(5_000).await;
        assert!(noted.count() <= 1, "nothing new, nothing written");
    });
}

#[test]
fn a_signature_that_could_not_be_noted_is_shown_again() {
    sim_run(1, || async {
        let stage = Stage::new();
        stage.grow(5);
        stage.sign(3);
        let first = Cell::new(true);
        let (noted, alarms) = notary(&stage, move |_| match first.replace(false) {
            true => Err(SignError::Guard("no space left".to_owned())),
            false => Ok(()),
        });
        pass(5_000).await;
        assert_eq!((heights(&noted), alarms.count()), (vec![3, 3], 0));
    });
}

#[test]
fn the_guard_of_a_sole_voter_follows_nobody() {
    sim_run(1, || async {
        let stage = Stage::new();
        stage.vote_alone();
        stage.grow(5);
        stage.sign(5);
        let (noted, _) = notary(&stage, |_| Ok(()));
        pass(5_000).await;
        assert_eq!(noted.count(), 0, "A15: all signatures are its own");
    });
}

#[test]
fn another_header_in_the_guard_than_in_the_log_needs_a_person() {
    sim_run(1, || async {
        let stage = Stage::new();
        stage.grow(5);
        stage.sign(5);
        let (_, alarms) = notary(&stage, |asked| {
            let (height, asked) = (asked.signed.header.height, asked.signed.header.hash());
            Err(SignError::DoubleSign { height, guarded: Hash::of(b"other"), asked })
        });
        pass(1_500).await;
        assert!(alarms.take()[0].reason.contains("height 5"), "I1");
    });
}
