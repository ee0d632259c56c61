//! Who is turned away, and that both sides know why.

use super::*;
use crate::cluster::metrics::By;

/// The second node calls the first, and the first the second; both are told of the refusal, by
/// whoever found it.
async fn parted(one: Spec, two: Spec, cause: Cause, words: &str) {
    let wires = Wires::new();
    let (one, two) = (one.start(&wires).await, two.start(&wires).await);
    one.echo();
    two.echo();
    // By address, as a node that joins: the storage is not known.
    let called =
        |node: &Node<Host>| Member { name: String::new(), storage: Uuid::nil(), ..node.member.clone() };
    for (from, to) in [(&two, &one), (&one, &two)] {
        let refused = from.call(&called(to), Class::Urgent, b"x").await;
        let Err(CallError::Refused(reason)) = &refused else { panic!("{cause:?}: {refused:?}") };
        assert!(reason.contains(words), "{cause:?}: {reason}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        // The side that was dialled finds it first.
        assert_eq!(from.told().last(), Some(&(By::Them, cause)));
        assert_eq!(to.told().last(), Some(&(By::Us, cause)));
        assert_eq!((from.refusals(By::Them, cause), to.refusals(By::Us, cause)), (1, 1));
        let told = to.told.lock().unwrap().last().cloned().unwrap();
        assert_eq!(told.name.as_deref(), Some(from.member.name.as_str()));
        assert_eq!(told.storage, Some(from.member.storage));
        assert!(told.reason.contains(words) && told.address.starts_with("127.0.0."), "{told:?}");
    }
    assert_eq!(one.connections(Class::Urgent, "in") + two.connections(Class::Urgent, "in"), 0);
}

#[tokio::test(start_paused = true)]
async fn another_chain_genesis_or_cluster_is_refused_with_the_reason_on_both_sides() {
    let other = |change: fn(&mut Identity)| Spec::new(2).identity(change);
    let chain = other(|identity| identity.chain_id = "other".to_owned());
    parted(Spec::new(1), chain, Cause::Chain, "of chain").await;
    let genesis = other(|identity| identity.genesis = Hash::of(b"other"));
    parted(Spec::new(1), genesis, Cause::Chain, "its genesis is").await;
    let cluster = other(|identity| identity.cluster = Some(Uuid::from_u128(78)));
    parted(Spec::new(1), cluster, Cause::Cluster, "belongs to cluster").await;
}

#[tokio::test(start_paused = true)]
async fn two_nodes_of_one_name_and_a_copy_of_ones_own_disk_are_refused_with_the_remedy() {
    let same_name = Spec::new(2).identity(|identity| identity.name = "n1".to_owned());
    parted(Spec::new(1), same_name, Cause::Name, "raft.node_id").await;
    let own = Spec::new(1).config.identity.storage;
    let copy = Spec::new(2).identity(|identity| identity.storage = own);
    parted(Spec::new(1), copy, Cause::Clone, "wipe its copy").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_talk_to_itself() {
    let wires = Wires::new();
    let one = Spec::new(1).start(&wires).await;
    let called = Member { name: String::new(), storage: Uuid::nil(), ..one.member.clone() };
    let refused = one.call(&called, Class::Urgent, b"x").await;
    assert!(
        matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("the node itself")),
        "{refused:?}"
    );
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(one.told(), [(By::Us, Cause::Itself), (By::Them, Cause::Itself)]);
}

#[tokio::test(start_paused = true)]
async fn another_storage_or_name_than_the_members_is_refused_by_the_caller() {
    let wires = Wires::new();
    let (one, two) = two(&wires).await;
    let wiped = Member { storage: Uuid::from_u128(999), ..two.member.clone() };
    let renamed = Member { name: "n3".to_owned(), ..two.member.clone() };
    for (member, cause, words) in
        [(wiped, Cause::Storage, "another member"), (renamed, Cause::Name, "\"n3\" was called")]
    {
        let refused = one.call(&member, Class::Append, b"x").await;
        assert!(matches!(&refused, Err(CallError::Refused(reason)) if reason.contains(words)), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(one.told().last(), Some(&(By::Us, cause)));
        assert_eq!(two.told().last(), Some(&(By::Them, cause)));
    }
    one.call(&two.member, Class::Append, b"x").await.unwrap();
}

fn life(number: u8, boot: u64, run: u64) -> Spec {
    Spec { seed: run, ..Spec::new(number).identity(|identity| identity.boot = boot) }
}

#[tokio::test(start_paused = true)]
async fn a_second_process_with_the_same_life_is_refused_whoever_calls() {
    let wires = Wires::new();
    let one = Spec::new(1).start(&wires).await;
    one.echo();
    let original = life(2, 5, 20).start(&wires).await;
    original.echo();
    original.call(&one.member, Class::Urgent, b"x").await.unwrap();
    let elsewhere = |spec: Spec| spec.with(|config| config.listen = "127.0.0.9:100".to_owned());
    let clone = elsewhere(life(2, 5, 21)).start(&wires).await;
    let refused = clone.call(&one.member, Class::Urgent, b"x").await;
    assert!(
        matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("copied disk")),
        "{refused:?}"
    );
    let refused = one.call(&clone.member, Class::Append, b"x").await;
    assert!(
        matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("copied disk")),
        "{refused:?}"
    );
    tokio::time::sleep(Duration::from_millis(10)).await;
    // Told once of the same node, counted twice.
    assert_eq!((one.told(), one.refusals(By::Us, Cause::Clone)), (vec![(By::Us, Cause::Clone)], 2));
    assert_eq!(clone.refusals(By::Them, Cause::Clone), 2);
    original.call(&one.member, Class::Urgent, b"x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_newer_life_is_refused_while_an_earlier_one_is_alive() {
    let wires = Wires::new();
    let one = Spec::new(1).start(&wires).await;
    one.echo();
    let original = life(2, 5, 20).start(&wires).await;
    original.echo();
    original.call(&one.member, Class::Urgent, b"x").await.unwrap();
    // A snapshot of its disk is started elsewhere, and opened once more than the original.
    let copy = life(2, 6, 21).with(|config| config.listen = "127.0.0.9:100".to_owned());
    let copy = copy.start(&wires).await;
    copy.echo();
    let refused = copy.call(&one.member, Class::Urgent, b"x").await;
    assert!(
        matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("copied disk")),
        "{refused:?}"
    );
    let refused = one.call(&copy.member, Class::Append, b"x").await;
    assert!(matches!(&refused, Err(CallError::Refused(_))), "whoever calls: {refused:?}");
    assert!(one.told().contains(&(By::Us, Cause::Clone)));
    original.call(&one.member, Class::Urgent, b"x").await.unwrap();
    one.call(&original.member, Class::Append, b"x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn once_a_newer_life_was_seen_the_older_one_is_cut_off_and_refused() {
    let wires = Wires::new();
    let one = Spec::new(1).start(&wires).await;
    one.echo();
    let older = life(2, 5, 20).start(&wires).await;
    older.echo();
    older.call(&one.member, Class::Urgent, b"x").await.unwrap();
    one.call(&older.member, Class::Urgent, b"x").await.unwrap();
    // Its machine went without a word; it is started anew before its connections are given up.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(one.connections(Class::Urgent, "in"), 1);
    let newer = life(2, 6, 21).with(|config| config.listen = "127.0.0.9:100".to_owned());
    let newer = newer.start(&wires).await;
    newer.echo();
    newer.call(&one.member, Class::Urgent, b"x").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((older.connections(Class::Urgent, "in"), older.connections(Class::Urgent, "out")), (0, 0));
    for class in [Class::Urgent, Class::Bulk] {
        let refused = older.call(&one.member, class, b"x").await;
        assert!(
            matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("life 6")),
            "{refused:?}"
        );
        let refused = one.call(&older.member, class, b"x").await;
        assert!(matches!(&refused, Err(CallError::Refused(_))), "{refused:?}");
    }
    assert!(one.told().contains(&(By::Us, Cause::OlderBoot)));
    assert!(older.told().contains(&(By::Them, Cause::OlderBoot)));
    newer.call(&one.member, Class::Urgent, b"x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_members_disk_under_another_name_is_no_newer_life_of_the_member() {
    let wires = Wires::new();
    let one = Spec::new(1).start(&wires).await;
    one.echo();
    let storage = Spec::new(2).config.identity.storage;
    one.cluster.know(Some(Arc::new(move |asked| (asked == storage).then(|| "n2".to_owned()))));
    let copy = life(4, 6, 21).identity(|identity| identity.storage = storage).start(&wires).await;
    copy.echo();
    let by_address = Member { name: String::new(), storage: Uuid::nil(), ..copy.member.clone() };
    for refused in
        [copy.call(&one.member, Class::Urgent, b"x").await, one.call(&by_address, Class::Urgent, b"x").await]
    {
        assert!(
            matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("that of member n2")),
            "{refused:?}"
        );
    }
    // The member itself comes back in the very life that the copy claimed.
    let original = life(2, 6, 20).start(&wires).await;
    original.call(&one.member, Class::Urgent, b"x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn storages_that_are_no_members_are_forgotten_when_there_are_too_many() {
    let full: lives::Seen = (0..4096)
        .map(|number| (Uuid::from_u128(5_000 + number), lives::Life { boot: 3, run: Uuid::nil() }))
        .collect();
    let wires = Wires::new();
    let known = MemoryLives::default();
    known.save(full).await.unwrap();
    let one = Spec { lives: Arc::new(known), ..Spec::new(1) }.start(&wires).await;
    one.echo();
    let two = Spec::new(2).start(&wires).await;
    let refused = two.call(&one.member, Class::Urgent, b"x").await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "nobody knows who is a member: {refused:?}");
    let (own, member) = (one.member.storage, Uuid::from_u128(5_000));
    let names = move |asked| {
        [(own, "n1"), (member, "n5")].iter().find(|(of, _)| *of == asked).map(|(_, name)| (*name).to_owned())
    };
    one.cluster.know(Some(Arc::new(names)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    two.call(&one.member, Class::Urgent, b"x").await.unwrap();
    let older = life(5, 2, 50).identity(|identity| identity.storage = member).start(&wires).await;
    let refused = older.call(&one.member, Class::Urgent, b"x").await;
    assert!(
        matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("life 3")),
        "a member is not forgotten: {refused:?}"
    );
}

#[tokio::test]
async fn lives_are_remembered_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let lives: Arc<dyn Lives> = Arc::new(FileLives::new(home.path().join("lives.json")));
    let newer = life(2, 6, 21).start_on_tcp().await;
    {
        let one = Spec { lives: lives.clone(), ..Spec::new(1) }.start_on_tcp().await;
        one.echo();
        newer.call(&one.member, Class::Urgent, b"x").await.unwrap();
    }
    let again = Spec::new(1).identity(|identity| identity.boot = 2);
    let one = Spec { lives, seed: 99, ..again }.start_on_tcp().await;
    one.echo();
    let older = life(2, 5, 20).start_on_tcp().await;
    let refused = older.call(&one.member, Class::Urgent, b"x").await;
    assert!(
        matches!(&refused, Err(CallError::Refused(reason)) if reason.contains("older_boot") || reason.contains("life 6")),
        "{refused:?}"
    );
    newer.call(&one.member, Class::Urgent, b"x").await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_of_lives_stops_the_start_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("lives.json");
    std::fs::write(&path, "[").unwrap();
    let spec = Spec { lives: Arc::new(FileLives::new(&path)), ..Spec::new(1) };
    let Err(refused) = spec.listen(Tcp).await else { panic!("it started") };
    assert!(refused.to_string().contains("config/lives.json"), "{refused}");
}

struct Hanging;

impl Lives for Hanging {
    fn load(&self) -> io::Result<lives::Seen> {
        Ok(lives::Seen::new())
    }

    fn save(&self, _: lives::Seen) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_keeps_no_member_out_and_is_counted() {
    let wires = Wires::new();
    let one = Spec { lives: Arc::new(Hanging), ..Spec::new(1) }.start(&wires).await;
    one.echo();
    let two = Spec::new(2).start(&wires).await;
    two.call(&one.member, Class::Urgent, b"x").await.unwrap();
    assert_eq!(one.metrics.unsaved_lives.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_a_cluster_says_so_on_open_connections() {
    let wires = Wires::new();
    let one = Spec::new(1).start(&wires).await;
    one.echo();
    let joining = Spec::new(2).identity(|identity| identity.cluster = None).start(&wires).await;
    let clusters: Arc<Mutex<Vec<Option<Uuid>>>> = Arc::default();
    for node in [&one, &joining] {
        let clusters = clusters.clone();
        node.cluster.serve(Some(Arc::new(move |caller: Caller, _, body| {
            clusters.lock().unwrap().push(caller.cluster);
            Box::pin(std::future::ready(Ok(body)))
        })));
    }
    joining.call(&one.member, Class::Urgent, b"x").await.unwrap();
    let (caller, _) = one.call(&joining.member, Class::Urgent, b"x").await.unwrap();
    assert_eq!((caller.cluster, clusters.lock().unwrap()[0]), (None, None));
    joining.cluster.belongs_to(Uuid::from_u128(77));
    tokio::time::sleep(Duration::from_millis(10)).await;
    joining.call(&one.member, Class::Urgent, b"x").await.unwrap();
    let (caller, _) = one.call(&joining.member, Class::Urgent, b"x").await.unwrap();
    let known = Some(Uuid::from_u128(77));
    assert_eq!((caller.cluster, clusters.lock().unwrap()[2]), (known, known));
    assert_eq!(wires.dials(), 2, "nothing was connected anew");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_in_the_middle_of_a_handshake_says_so_after_it() {
    let wires = Wires::new();
    // A hello takes a fifth of a second.
    wires.set_rate(600);
    let one = Spec::new(1).start(&wires).await;
    one.echo();
    let joining = Spec::new(2).identity(|identity| identity.cluster = None).start(&wires).await;
    let first = joining.cluster.call(one.member.clone(), Class::Urgent, Bytes::new(), Duration::from_secs(9));
    let first = tokio::spawn(first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    joining.cluster.belongs_to(Uuid::from_u128(77));
    first.await.unwrap().unwrap();
    let seen: Arc<Mutex<Option<Uuid>>> = Arc::default();
    let note = seen.clone();
    one.cluster.serve(Some(Arc::new(move |caller: Caller, _, body| {
        *note.lock().unwrap() = caller.cluster;
        Box::pin(std::future::ready(Ok(body)))
    })));
    joining.call(&one.member, Class::Urgent, b"x").await.unwrap();
    assert_eq!((*seen.lock().unwrap(), wires.dials()), (Some(Uuid::from_u128(77)), 1));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_join_different_clusters_part() {
    let wires = Wires::new();
    let fresh = |number| Spec::new(number).identity(|identity| identity.cluster = None);
    let (one, two) = (fresh(1).start(&wires).await, fresh(2).start(&wires).await);
    one.echo();
    two.echo();
    one.call(&two.member, Class::Urgent, b"x").await.unwrap();
    two.call(&one.member, Class::Bulk, b"x").await.unwrap();
    one.cluster.belongs_to(Uuid::from_u128(1));
    two.cluster.belongs_to(Uuid::from_u128(2));
    tokio::time::sleep(Duration::from_secs(3)).await;
    for node in [&one, &two] {
        assert_eq!((node.connections(Class::Urgent, "out"), node.connections(Class::Urgent, "in")), (0, 0));
        assert!(node.told().iter().any(|(_, cause)| *cause == Cause::Cluster));
    }
    let refused = one.call(&two.member, Class::Urgent, b"x").await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_once_a_minute_and_counted_always() {
    let wires = Wires::new();
    let one = Spec::new(1).start(&wires).await;
    let two = Spec::new(2).identity(|identity| identity.chain_id = "other".to_owned()).start(&wires).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(90) {
        let _ = two.call(&one.member, Class::Urgent, b"x").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(one.told().len(), 2);
    assert!(one.told.lock().unwrap()[1].repeated > 300);
    assert!(one.refusals(By::Us, Cause::Chain) > 500);
}
