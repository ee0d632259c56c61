//! What anybody can send to the port, and what goes out in plaintext.

use baton_messages::codec::{MAX_BLOCK_BYTES, MAX_ENCODED};
use rand::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::cluster::metrics::By;

/// Reads until the other end closes.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = vec![];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut seen)).await;
    // A reset is a close too.
    let _ = read.expect("the other end closes in time");
    seen
}

#[tokio::test]
async fn garbage_and_too_long_frames_are_dropped_and_counted() {
    let home = tempfile::tempdir().unwrap();
    certify(&authority(), "n1", &home.path().join("n1"), 100);
    let plain = Spec::new(1).start_on_tcp().await;
    let secret = Spec::new(1).certified(&home.path().join("n1")).start_on_tcp().await;
    let mut chance = StdRng::seed_from_u64(1);
    let mut random = vec![0xff; 4096];
    chance.fill_bytes(&mut random[1..]);
    let own_kind = hello::Refusal::new(Cause::Chain, "x").frame();
    let mut refusal = vec![];
    own_kind.write(&mut refusal).await.unwrap();
    for node in [&plain, &secret] {
        let garbage: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
            &random,
            &[0, 0, 0, 0],
            &[0, 0, 0, 1, 99],
            &[0, 0, 0, 1, 7],
        ];
        for bytes in garbage {
            let before = node.refusals(By::Us, Cause::Malformed) + node.refusals(By::Us, Cause::Slow);
            let mut stream = TcpStream::connect(&node.member.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let said = closed(&mut stream).await;
            assert!(said.len() < 200, "{}", String::from_utf8_lossy(&said));
            until("counted", || {
                let counted = [Cause::Malformed, Cause::Slow, Cause::Closed]
                    .map(|cause| node.refusals(By::Us, cause) + node.refusals(By::Them, cause));
                counted.iter().sum::<u64>() > before
            })
            .await;
        }
        assert_eq!(node.connections(Class::Urgent, "in"), 0);
        assert!(node.told().is_empty(), "a scanner of ports fills no audit record");
    }
    assert!(plain.refusals(By::Us, Cause::Malformed) >= 4);
    assert!(secret.refusals(By::Us, Cause::Malformed) >= 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_says_nothing_or_stops_half_way_is_gone_after_two_seconds() {
    let wires = Wires::new();
    let one = Spec::new(1).start(&wires).await;
    let host = wires.host("127.0.0.9:1");
    let mut open = vec![];
    for bytes in [&b""[..], &[0, 0], &[0, 0, 3, 0, 1, 1, 0, 1]] {
        let (mut stream, _) = host.connect(&one.member.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        open.push(stream);
    }
    let started = Instant::now();
    for stream in &mut open {
        assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
    }
    assert_eq!(started.elapsed().as_secs(), 2);
    assert_eq!(one.refusals(By::Us, Cause::Slow), 3);
}

#[tokio::test(start_paused = true)]
async fn strangers_in_any_number_keep_no_member_from_connecting() {
    let wires = Wires::new();
    let few = |config: &mut Config| {
        config.limits = Limits { handshakes: 8, handshakes_per_address: 6, connections: 20, ..config.limits };
    };
    let one = Spec::new(1).with(few).start(&wires).await;
    one.echo();
    let two = Spec::new(2).start(&wires).await;
    two.call(&one.member, Class::Urgent, b"x").await.unwrap();
    let mut open = vec![];
    for host in ["127.0.0.7:1", "127.0.0.8:1"] {
        for _ in 0..50 {
            open.push(wires.host(host).connect(&one.member.address).await.unwrap().0);
        }
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(one.refusals(By::Us, Cause::Full), 92);
    // The places are full of those who say nothing; a member that comes now gets one.
    two.call(&one.member, Class::Urgent, b"x").await.unwrap();
    two.call(&one.member, Class::Append, b"x").await.unwrap();
    two.call(&one.member, Class::Bulk, b"x").await.unwrap();
    let three = Spec::new(3).start(&wires).await;
    three.call(&one.member, Class::Append, b"x").await.unwrap();
    drop(open);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_breaks_the_protocol_after_its_welcome_is_parted_from() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    let breaks: [Vec<u8>; 2] = [
        vec![0, 0, 0, 1, 99],
        // An answer nobody asked for.
        vec![0, 0, 0, 9, 5, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in breaks {
        let hello = two.cluster.shared.gate.hello(Class::Urgent);
        let (mut stream, _) = wires.host("127.0.0.2:1").connect(&one.member.address).await.unwrap();
        hello.frame().write(&mut stream).await.unwrap();
        frame::Frame::Welcome.write(&mut stream).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut frames = tokio_util::codec::FramedRead::new(stream, frame::Frames::up_to(frame::HELLO));
        let mut said = vec![];
        while let Some(Ok(frame)) = futures::StreamExt::next(&mut frames).await {
            said.push(frame);
        }
        assert!(
            matches!(&said[..], [frame::Frame::Hello { .. }, frame::Frame::Refused(text)] if text.starts_with("malformed")),
            "{said:?}"
        );
    }
    assert_eq!(one.refusals(By::Us, Cause::Malformed), 2);
    one.call(&two.member, Class::Urgent, b"x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_with_larger_blocks_than_fit_here_is_named_to_both_operators() {
    let wires = Wires::new();
    let small = |config: &mut Config| config.limits.append.bytes = 1000;
    let one = Spec::new(1).with(small).start(&wires).await;
    one.echo();
    let two = Spec::new(2).start(&wires).await;
    let refused = two.call(&one.member, Class::Append, &[0; 5000]).await;
    assert!(
        matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("block.max_bytes")),
        "{refused:?}"
    );
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(
        (one.told(), two.told()),
        (vec![(By::Us, Cause::TooLarge)], vec![(By::Them, Cause::TooLarge)])
    );
}

/// A forced transaction may be larger than `block.max_bytes`, and what a chain holds was made with the
/// settings of others: the largest block there can be is understood by everybody.
#[tokio::test(start_paused = true)]
async fn members_with_other_block_sizes_understand_each_other() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    for class in [Class::Append, Class::Bulk] {
        for size in [5 << 20, 20 << 20, MAX_BLOCK_BYTES, MAX_ENCODED - 100] {
            let (_, answer) = one.call(&two.member, class, &vec![7; size]).await.unwrap();
            assert!(answer.len() > size, "{size} bytes there and back");
        }
    }
    assert_eq!((one.told(), two.told()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn plaintext_off_the_machine_is_refused_on_every_way() {
    let wires = Wires::new();
    // To listen.
    let outside =
        |number: u8| Spec::new(number).with(|config| config.listen = format!("10.0.0.{number}:100"));
    let host = wires.host("10.0.0.1:100");
    let Err(refused) = outside(1).listen(host).await else { panic!("it listens") };
    assert!(
        matches!(refused, ListenError::Plaintext(_)) && refused.to_string().contains("baton tls"),
        "{refused}"
    );
    // To call.
    let one = Spec::new(1).start(&wires).await;
    let stranger = wires.host("10.0.0.2:100");
    let _listening = stranger.bind("10.0.0.2:100").await.unwrap();
    let member = Member { address: "10.0.0.2:100".to_owned(), ..Member::default() };
    let refused = one.call(&member, Class::Urgent, b"x").await;
    assert!(
        matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("raft.tls.ca")),
        "{refused:?}"
    );
    // To be called.
    let (mut stream, _) = stranger.connect(&one.member.address).await.unwrap();
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
    assert_eq!(one.refusals(By::Us, Cause::Plaintext), 2);
}

#[tokio::test]
async fn a_member_that_restarts_at_its_port_is_reached_again_over_tls() {
    let home = tempfile::tempdir().unwrap();
    let authority = authority();
    certify(&authority, "n1", &home.path().join("n1"), 100);
    certify(&authority, "n2", &home.path().join("n2"), 100);
    let one = Spec::new(1).certified(&home.path().join("n1")).start_on_tcp().await;
    let two = Spec::new(2).certified(&home.path().join("n2"));
    let mut running = two.clone().start_on_tcp().await;
    let member = running.member.clone();
    for boot in 2..5 {
        running.echo();
        let (caller, _) = one.call(&member, Class::Urgent, b"x").await.unwrap();
        assert_eq!(caller.boot, boot - 1);
        running.answer_after(Duration::from_secs(60));
        let waiting = tokio::spawn(one.cluster.call(
            member.clone(),
            Class::Bulk,
            Bytes::new(),
            Duration::from_secs(60),
        ));
        until("under way", || running.in_flight(Class::Bulk, "in") == 1).await;
        let stopped = Instant::now();
        drop(running);
        assert!(matches!(waiting.await.unwrap(), Err(CallError::Unreachable(_))));
        assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
        let again = Spec { seed: 50 + boot, ..two.clone() }.with(|config| {
            config.identity.boot = boot;
            config.listen = member.address.clone();
        });
        // The port is free a moment after.
        running = loop {
            match again.clone().listen(Tcp).await {
                Ok(node) => break node,
                Err(ListenError::Taken { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        };
        // A dial may have failed in between: the next one is at most 50 ms away.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let one = Spec::new(1).start_on_tcp().await;
    let again = Spec::new(2).with(|config| config.listen = one.member.address.clone());
    let Err(refused) = again.listen(Tcp).await else { panic!("it listens") };
    assert!(refused.to_string().contains(&format!("{} is taken", one.member.address)), "{refused}");
}

#[tokio::test]
async fn a_name_is_looked_up_at_each_dial_and_every_address_of_it_is_tried() {
    let one = Spec::new(1).start_on_tcp().await;
    one.echo();
    let two = Spec::new(2).start_on_tcp().await;
    let port = one.cluster.local_address().port();
    let by_name = Member { address: format!("localhost:{port}"), ..one.member.clone() };
    two.call(&by_name, Class::Urgent, b"x").await.unwrap();
    let nowhere = Member { address: "host.invalid:1".to_owned(), ..Member::default() };
    assert!(matches!(two.call(&nowhere, Class::Urgent, b"x").await, Err(CallError::Unreachable(_))));
}

#[tokio::test(start_paused = true)]
async fn every_series_has_a_name_of_its_own() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    one.call(&two.member, Class::Urgent, b"x").await.unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    one.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for series in [
        "cluster_connections{class=\"urgent\",way=\"out\"} 1",
        "cluster_calls_total{class=\"urgent\",outcome=\"answered\"} 1",
        "cluster_round_trip_seconds_count{class=\"urgent\"} 1",
        "cluster_certificate_expiry_seconds 0",
    ] {
        assert!(text.contains(series), "{series} is not in\n{text}");
    }
    let bytes = one.metrics.bytes(Class::Urgent, "out").get();
    assert!(bytes > 10, "{bytes}");
}
