//! Calls: who answers, how many at once, and how they end when the connection does.

use super::*;

fn short() -> Duration {
    Duration::from_millis(100)
}

#[tokio::test]
async fn calls_are_answered_in_every_class_and_both_directions_over_tls() {
    let home = tempfile::tempdir().unwrap();
    let authority = authority();
    certify(&authority, "n1", &home.path().join("n1"), 100);
    certify(&authority, "n2", &home.path().join("n2"), 100);
    let one = Spec::new(1).certified(&home.path().join("n1")).start_on_tcp().await;
    let two = Spec::new(2).certified(&home.path().join("n2")).start_on_tcp().await;
    one.echo();
    two.echo();
    for (class, size) in [(Class::Urgent, 100), (Class::Append, 4 << 20), (Class::Bulk, 8 << 20)] {
        let body = vec![7; size];
        let (caller, answer) = one.call(&two.member, class, &body[..size - 20]).await.unwrap();
        assert_eq!((caller.name.as_str(), caller.storage), ("n2", two.member.storage));
        assert_eq!((caller.id, caller.boot), (MemberId::of(two.member.storage), 1));
        assert_eq!(caller.cluster, Some(Uuid::from_u128(77)));
        assert!(answer.starts_with(format!("n1{}", class.name()).as_bytes()) && answer.ends_with(&[7; 50]));
        let (caller, answer) = two.call(&one.member, class, b"x").await.unwrap();
        assert_eq!((caller.name.as_str(), &answer[..]), ("n1", format!("n2{}x", class.name()).as_bytes()));
        assert_eq!((one.connections(class, "out"), one.connections(class, "in")), (1, 1));
        assert_eq!(one.calls(class, "answered"), 1);
    }
    // One connection serves any number of calls.
    for _ in 0..100 {
        one.call(&two.member, Class::Urgent, b"x").await.unwrap();
    }
    assert_eq!(two.connections(Class::Urgent, "in"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_append_on_a_slow_line_does_not_delay_heartbeats() {
    let wires = Wires::new();
    wires.set_rate(1 << 20);
    let (one, two) = two(&wires).await;
    let append = {
        let (cluster, to) = (one.cluster.clone(), two.member.clone());
        tokio::spawn(async move {
            let started = Instant::now();
            let body = Bytes::from(vec![0; 4 << 20]);
            cluster.call(to, Class::Append, body, Duration::from_secs(60)).await.unwrap();
            started.elapsed()
        })
    };
    one.call(&two.member, Class::Urgent, b"x").await.unwrap();
    let mut heartbeats = 0;
    while !append.is_finished() {
        let started = Instant::now();
        one.call_within(&two.member, Class::Urgent, &[0; 200], Duration::from_millis(20)).await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(5), "{:?}", started.elapsed());
        heartbeats += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Eight seconds for four megabytes there and back, longer than a silence may last: a slow line
    // is not a dead one.
    assert!(append.await.unwrap() > Duration::from_secs(8));
    assert!(heartbeats > 100);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_the_limit_of_its_class_is_not_sent() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    let limit = one.cluster.limit(Class::Urgent);
    let refused = one.call(&two.member, Class::Urgent, &vec![0; limit + 1]).await;
    assert_eq!(refused, Err(CallError::TooLarge { bytes: limit + 1, limit }));
    assert_eq!(wires.dials(), 0);
    // The echo adds the caller's name: now it is the answer that is too large.
    let denied = one.call(&two.member, Class::Urgent, &vec![0; limit]).await;
    assert!(
        matches!(&denied, Err(CallError::Denied(reason)) if reason.contains("over the limit")),
        "{denied:?}"
    );
    one.call(&two.member, Class::Urgent, &vec![0; limit - 100]).await.unwrap();
    assert_eq!(wires.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_serves_nobody_and_one_that_fails_say_so() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    two.cluster.serve(None);
    let denied = one.call(&two.member, Class::Bulk, b"x").await;
    assert_eq!(denied, Err(CallError::Denied("this node answers no calls now".to_owned())));
    two.cluster.serve(Some(Arc::new(|_, _, _| Box::pin(std::future::ready(Err("not now".to_owned()))))));
    assert_eq!(one.call(&two.member, Class::Bulk, b"x").await, Err(CallError::Denied("not now".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_wait_and_beyond_the_queue_fail_at_once() {
    let wires = Wires::new();
    let narrow = |config: &mut Config| {
        config.limits.bulk = ClassLimits { in_flight: 2, waiting: 3, ..config.limits.bulk };
    };
    let (one, two) =
        (Spec::new(1).with(narrow).start(&wires).await, Spec::new(2).with(narrow).start(&wires).await);
    two.answer_after(Duration::from_secs(1));
    let calls: Vec<_> = (0..6u8)
        .map(|number| {
            let call = one.cluster.call(
                two.member.clone(),
                Class::Bulk,
                vec![number].into(),
                Duration::from_secs(60),
            );
            tokio::spawn(async move { (call.await, Instant::now()) })
        })
        .collect();
    let started = Instant::now();
    tokio::time::sleep(short()).await;
    assert_eq!((one.in_flight(Class::Bulk, "out"), two.in_flight(Class::Bulk, "in")), (2, 2));
    let mut after = vec![];
    for call in calls {
        let (result, at) = call.await.unwrap();
        match result {
            Ok(_) => after.push((at - started).as_millis() / 100),
            Err(CallError::Unreachable(reason)) => {
                assert_eq!(at, started, "it fails at once");
                assert!(reason.contains("2 calls of class bulk") && reason.contains("3 wait"), "{reason}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(after, [10, 10, 20, 20, 30]);
    assert_eq!(one.in_flight(Class::Bulk, "out"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_frees_its_place_and_a_late_answer_hurts_nobody() {
    let wires = Wires::new();
    let narrow = |config: &mut Config| {
        config.limits.bulk = ClassLimits { in_flight: 1, waiting: 1, ..config.limits.bulk };
    };
    let (one, two) = (Spec::new(1).with(narrow).start(&wires).await, Spec::new(2).start(&wires).await);
    two.answer_after(Duration::from_millis(500));
    for _ in 0..3 {
        let call = one.cluster.call(two.member.clone(), Class::Bulk, Bytes::new(), Duration::from_secs(60));
        assert!(tokio::time::timeout(short(), call).await.is_err());
        assert_eq!(one.in_flight(Class::Bulk, "out"), 0);
    }
    assert_eq!(one.calls(Class::Bulk, "dropped"), 3);
    let (_, answer) = one.call(&two.member, Class::Bulk, b"mine").await.unwrap();
    assert_eq!(&answer[..], b"mine");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_times_out_leaves_the_connection_and_the_other_end_stops_working_on_it() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    two.answer_after(Duration::from_secs(60));
    for _ in 0..40 {
        let late = one.call_within(&two.member, Class::Append, b"x", short()).await;
        assert_eq!(late, Err(CallError::TimedOut(short())));
    }
    tokio::time::sleep(short()).await;
    assert_eq!(two.in_flight(Class::Append, "in"), 0);
    two.echo();
    one.call_within(&two.member, Class::Append, b"x", short()).await.unwrap();
    assert_eq!(wires.dials(), 1, "slow is not dead: a ping was answered");
}

#[tokio::test(start_paused = true)]
async fn when_the_connection_breaks_everything_on_it_ends_at_once() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    two.answer_after(Duration::from_secs(60));
    let calls: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn(one.cluster.call(
                two.member.clone(),
                Class::Urgent,
                Bytes::new(),
                Duration::from_secs(60),
            ))
        })
        .collect();
    tokio::time::sleep(short()).await;
    let broken = Instant::now();
    drop(two);
    for call in calls {
        assert!(matches!(call.await.unwrap(), Err(CallError::Unreachable(_))));
    }
    assert!(broken.elapsed() < Duration::from_millis(20), "{:?}", broken.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_went_dead_is_given_up_after_a_silence_and_made_anew() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    one.call(&two.member, Class::Urgent, b"x").await.unwrap();
    wires.cut();
    let cut = Instant::now();
    let mut last = None;
    // Heartbeats as a leader sends them.
    for _ in 0..40 {
        last = Some(one.call_within(&two.member, Class::Urgent, b"x", short()).await.unwrap_err());
    }
    assert!(matches!(last, Some(CallError::Unreachable(_) | CallError::TimedOut(_))));
    wires.heal();
    let healed = Instant::now();
    while one.call_within(&two.member, Class::Urgent, b"x", short()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(cut.elapsed() > Duration::from_secs(1));
    // At worst a dial had begun just before: it takes its second.
    assert!(healed.elapsed() < Duration::from_millis(1100), "{:?}", healed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn both_ends_notice_that_an_idle_line_is_dead() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    one.call(&two.member, Class::Append, b"x").await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((one.connections(Class::Append, "out"), wires.dials()), (1, 1), "an idle connection is kept");
    wires.cut();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(one.connections(Class::Append, "out"), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(two.connections(Class::Append, "in"), 0);
}

#[tokio::test(start_paused = true)]
async fn while_a_member_is_down_calls_fail_fast_and_dials_are_few() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    one.call(&two.member, Class::Urgent, b"x").await.unwrap();
    let member = two.member.clone();
    drop(two);
    tokio::time::sleep(short()).await;
    let (before, started) = (wires.dials(), Instant::now());
    let mut calls = 0;
    while started.elapsed() < Duration::from_secs(10) {
        for class in [Class::Urgent, Class::Append] {
            let asked = Instant::now();
            let failed = one.call(&member, class, b"x").await;
            assert!(
                matches!(&failed, Err(CallError::Unreachable(reason)) if reason.contains("n2")),
                "{failed:?}"
            );
            assert_eq!(asked.elapsed(), Duration::ZERO);
            calls += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let dials = wires.dials() - before;
    // Urgent ones every 50 ms, appends with growing pauses.
    assert!(calls > 3000 && (150..250).contains(&dials), "{calls} calls, {dials} dials");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_restarts_is_reached_again_by_the_next_heartbeat() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    one.call(&two.member, Class::Urgent, b"x").await.unwrap();
    let member = two.member.clone();
    drop(two);
    for boot in 2..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(one.call(&member, Class::Urgent, b"x").await.is_err());
        let again = Spec { seed: 100 + boot, ..Spec::new(2) }.identity(|identity| identity.boot = boot);
        let again = again.start(&wires).await;
        again.echo();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (caller, _) = one.call(&member, Class::Urgent, b"x").await.unwrap();
        assert_eq!(caller.boot, boot);
        // The connection is made before it is needed again.
        again.cluster.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_not_called_for_an_hour_is_forgotten_and_can_be_called_again() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    one.call(&two.member, Class::Bulk, b"x").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3590)).await;
    assert_eq!(one.connections(Class::Bulk, "out"), 1);
    tokio::time::sleep(Duration::from_secs(3620)).await;
    assert_eq!(one.connections(Class::Bulk, "out"), 0);
    assert!(one.cluster.links.lock().unwrap().values().all(Link::is_over));
    one.call(&two.member, Class::Bulk, b"x").await.unwrap();
    assert_eq!(one.cluster.links.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_transport_calls_nobody_and_leaves_nothing_behind() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    one.call(&two.member, Class::Urgent, b"x").await.unwrap();
    two.call(&one.member, Class::Urgent, b"x").await.unwrap();
    one.cluster.close();
    assert!(matches!(one.call(&two.member, Class::Urgent, b"x").await, Err(CallError::Unreachable(_))));
    tokio::time::sleep(Duration::from_secs(3)).await;
    for node in [&one, &two] {
        assert_eq!((node.connections(Class::Urgent, "out"), node.connections(Class::Urgent, "in")), (0, 0));
    }
    assert_eq!(Arc::strong_count(&one.cluster.shared), 1, "no task holds on to it");
    assert!(one.told().is_empty() && two.told().is_empty(), "a stop is no refusal");
}
