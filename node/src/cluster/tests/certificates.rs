//! TLS: who is accepted, and certificates that are renewed.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cluster::metrics::{By, ReloadLabels};

fn directory(home: &tempfile::TempDir, node: &str) -> std::path::PathBuf {
    home.path().join(node)
}

async fn refused_start(spec: Spec) -> String {
    let wires = Wires::new();
    let host = wires.host(&spec.config.listen);
    match spec.listen(host).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

/// The second calls the first over TLS and is refused; both know why.
async fn parted(one: Spec, two: Spec, by: By, words: &str) {
    let wires = Wires::new();
    let (one, two) = (one.start(&wires).await, two.start(&wires).await);
    one.echo();
    let refused = two.call(&one.member, Class::Urgent, b"x").await;
    let Err(CallError::Refused(reason)) = &refused else { panic!("{refused:?}") };
    assert!(reason.contains(words), "{reason}");
    tokio::time::sleep(Duration::from_millis(10)).await;
    let other = if by == By::Us { By::Them } else { By::Us };
    assert_eq!((two.told(), one.told()), (vec![(by, Cause::Certificate)], vec![(other, Cause::Certificate)]));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let home = tempfile::tempdir().unwrap();
    certify(&authority(), "n1", &directory(&home, "n1"), 100);
    certify(&authority(), "n2", &directory(&home, "n2"), 100);
    let spec = |number: u8| Spec::new(number).certified(&directory(&home, &format!("n{number}")));
    // The dialler sees the other's certificate first.
    parted(spec(1), spec(2), By::Us, "is not accepted").await;
    // It trusts the other's authority, the other does not trust its.
    let both = [directory(&home, "n1"), directory(&home, "n2")]
        .map(|node| std::fs::read_to_string(node.join("ca.pem")).unwrap());
    std::fs::write(directory(&home, "n2").join("ca.pem"), both.concat()).unwrap();
    parted(spec(1), spec(2), By::Them, "does not accept this node's certificate").await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_refused_on_both_sides() {
    let home = tempfile::tempdir().unwrap();
    let authority = authority();
    certify(&authority, "n1", &directory(&home, "n1"), 100);
    certify(&authority, "n2", &directory(&home, "n2"), 10);
    let (one, two) =
        (Spec::new(1).certified(&directory(&home, "n1")), Spec::new(2).certified(&directory(&home, "n2")));
    one.clock.0.store(11 * DAY, Ordering::Relaxed);
    parted(one.clone(), two.clone(), By::Them, "does not accept this node's certificate").await;
    parted(two, one, By::Us, "expired").await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_in_the_certificate_is_refused_on_both_sides() {
    let home = tempfile::tempdir().unwrap();
    let authority = authority();
    certify(&authority, "n1", &directory(&home, "n1"), 100);
    certify(&authority, "n3", &directory(&home, "n3"), 100);
    let wires = Wires::new();
    let one = Spec::new(1).certified(&directory(&home, "n1")).start(&wires).await;
    one.echo();
    let three = Spec::new(3).certified(&directory(&home, "n3")).start(&wires).await;
    // A node of the cluster that passes itself off as another one.
    let mut posing = three.cluster.shared.gate.hello(Class::Urgent);
    posing.name = "n2".to_owned();
    let tls = three.cluster.shared.gate.tls.as_ref().unwrap();
    let (stream, _) = wires.host("127.0.0.3:1").connect(&one.member.address).await.unwrap();
    let mut stream = tls.connector().connect(tls::server_name("n1"), stream).await.unwrap();
    posing.frame().write(&mut stream).await.unwrap();
    let mut frames = tokio_util::codec::FramedRead::new(stream, frame::Frames::up_to(frame::HELLO));
    let answer = futures::StreamExt::next(&mut frames).await.unwrap().unwrap();
    let frame::Frame::Refused(text) = answer else { panic!("{answer:?}") };
    assert!(text.contains("name: it calls itself \"n2\", its certificate is for n3"), "{text}");
    assert_eq!(one.told(), [(By::Us, Cause::Name)]);
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_by_address_learns_the_name_from_the_certificate() {
    let home = tempfile::tempdir().unwrap();
    let authority = authority();
    for name in ["n1", "n2"] {
        certify(&authority, name, &directory(&home, name), 100);
    }
    let wires = Wires::new();
    let one = Spec::new(1).certified(&directory(&home, "n1")).start(&wires).await;
    let two = Spec::new(2).certified(&directory(&home, "n2")).start(&wires).await;
    one.echo();
    let by_address = Member { address: one.member.address.clone(), ..Member::default() };
    let (caller, _) = two.call(&by_address, Class::Bulk, b"x").await.unwrap();
    assert_eq!((caller.name.as_str(), caller.storage), ("n1", one.member.storage));
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_without_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let old = authority();
    for name in ["n1", "n2"] {
        certify(&old, name, &directory(&home, name), 5);
    }
    let wires = Wires::new();
    let specs = [1, 2].map(|number| Spec::new(number).certified(&directory(&home, &format!("n{number}"))));
    let clocks = specs.clone().map(|spec| spec.clock);
    let [one, two] = specs;
    let (one, two) = (one.start(&wires).await, two.start(&wires).await);
    one.echo();
    two.call(&one.member, Class::Urgent, b"x").await.unwrap();
    assert_eq!(one.metrics.certificate_expiry.get(), 5 * i64::try_from(DAY).unwrap());

    // The time of the certificates is over; what is connected stays, nothing new is.
    clocks.iter().for_each(|clock| clock.0.store(6 * DAY, Ordering::Relaxed));
    two.call(&one.member, Class::Urgent, b"x").await.unwrap();
    assert!(matches!(two.call(&one.member, Class::Append, b"x").await, Err(CallError::Refused(_))));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(one.metrics.certificate_expiry.get(), -i64::try_from(DAY).unwrap());

    // Certificates of another authority, while half of the files are the old ones: refused, and
    // the old ones stay.
    let new = authority();
    let key = std::fs::read(directory(&home, "n1").join("node.key")).unwrap();
    certify(&new, "n1", &directory(&home, "n1"), 100);
    let new_key = std::fs::read(directory(&home, "n1").join("node.key")).unwrap();
    std::fs::write(directory(&home, "n1").join("node.key"), key).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let reloads =
        |node: &Node<Host>, outcome| node.metrics.reloads.get_or_create(&ReloadLabels { outcome }).get();
    assert_eq!((reloads(&one, "refused"), reloads(&one, "loaded")), (1, 0), "told once, not every 30 s");

    std::fs::write(directory(&home, "n1").join("node.key"), new_key).unwrap();
    certify(&new, "n2", &directory(&home, "n2"), 100);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (caller, _) = two.call(&one.member, Class::Append, b"x").await.unwrap();
    assert_eq!(caller.name, "n1");
    assert_eq!((reloads(&one, "loaded"), reloads(&two, "loaded")), (1, 1));
    assert_eq!(one.metrics.certificate_expiry.get(), 94 * i64::try_from(DAY).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_good_yet_is_used_when_it_is() {
    let home = tempfile::tempdir().unwrap();
    let authority = authority();
    let own = directory(&home, "n1");
    certify(&authority, "n1", &own, 5);
    let spec = Spec::new(1).certified(&own);
    let clock = spec.clock.clone();
    let one = spec.start(&Wires::new()).await;
    // The next one is put in place a day early.
    let validity = Validity { from: NOW + DAY, to: NOW + 100 * DAY };
    let pair = make_node(&authority, "n1", &[], validity).unwrap();
    std::fs::write(own.join("node.pem"), pair.cert).unwrap();
    std::fs::write(own.join("node.key"), &*pair.key).unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let outcomes = |outcome| one.metrics.reloads.get_or_create(&ReloadLabels { outcome }).get();
    assert_eq!((outcomes("refused"), outcomes("loaded")), (1, 0));
    clock.0.store(2 * DAY, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(outcomes("loaded"), 1);
    assert_eq!(one.metrics.certificate_expiry.get(), 98 * i64::try_from(DAY).unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_others_would_refuse_is_refused_at_the_start_with_the_remedy() {
    let home = tempfile::tempdir().unwrap();
    let authority = authority();
    let node = directory(&home, "n1");
    let spec = || Spec::new(1).certified(&node);

    assert!(refused_start(spec()).await.contains("does not exist"));
    certify(&authority, "n2", &node, 100);
    let said = refused_start(spec()).await;
    assert!(said.contains("is for n2") && said.contains("baton tls node n1"), "{said}");

    certify(&authority, "n1", &node, 100);
    std::fs::set_permissions(node.join("node.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let said = refused_start(spec()).await;
    assert!(said.contains("chmod 600"), "{said}");
    certify(&authority, "n1", &node, 100);

    let late = spec();
    late.clock.0.store(200 * DAY, Ordering::Relaxed);
    let said = refused_start(late).await;
    assert!(said.contains("is not accepted with the authority") && said.contains("expired"), "{said}");

    std::fs::write(node.join("ca.pem"), super::authority().cert).unwrap();
    assert!(refused_start(spec()).await.contains("is not accepted with the authority"));
    std::fs::write(node.join("ca.pem"), "nothing").unwrap();
    assert!(refused_start(spec()).await.contains("no CERTIFICATE section"));

    certify(&authority, "n1", &node, 100);
    let key = std::fs::read(node.join("node.key")).unwrap();
    certify(&authority, "n1", &node, 100);
    std::fs::write(node.join("node.key"), key).unwrap();
    let said = refused_start(spec()).await;
    assert!(said.contains("do not go together"), "{said}");
}

#[tokio::test]
async fn tls_and_plaintext_do_not_mix() {
    let home = tempfile::tempdir().unwrap();
    certify(&authority(), "n1", &directory(&home, "n1"), 100);
    let one = Spec::new(1).certified(&directory(&home, "n1")).start_on_tcp().await;
    let two = Spec::new(2).start_on_tcp().await;
    one.echo();
    two.echo();
    assert!(two.call(&one.member, Class::Urgent, b"x").await.is_err());
    assert!(one.call(&two.member, Class::Urgent, b"x").await.is_err());
    until("counted", || [&one, &two].iter().all(|node| node.refusals(By::Us, Cause::Malformed) > 0)).await;
}
