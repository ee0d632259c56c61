use baton_messages::types::{Timestamp, Tx};

use super::*;

fn limits() -> Limits {
    Limits { ahead: 10, bytes: 2_000, per_height: 2 }
}

fn da(height: u64) -> Origin {
    Origin::Da(DaHeight(height))
}

fn peer() -> Origin {
    another("p")
}

fn another(name: &str) -> Origin {
    Origin::Peer(name.into())
}

fn data(height: u64, text: &str) -> Arc<Data> {
    let metadata = Metadata {
        chain_id: "c".into(),
        height: Height(height),
        time: Timestamp(height),
        last_data_hash: Bytes::from_static(b"last"),
    };
    let txs = if text.is_empty() { vec![] } else { vec![Tx(Bytes::copy_from_slice(text.as_bytes()))] };
    Arc::new(Data { metadata: Some(metadata), txs })
}

fn header(height: u64, text: &str) -> Arc<SignedHeader> {
    let header = Header {
        height: Height(height),
        time: Timestamp(height),
        chain_id: "c".into(),
        data_hash: data(height, text).commitment().to_bytes(),
        ..Header::default()
    };
    let signature = header.hash().to_bytes();
    Arc::new(SignedHeader { header, signature, ..SignedHeader::default() })
}

fn put_header(all: &mut Candidates, height: u64, text: &str, from: Origin) -> Kept {
    let header = header(height, text);
    let hash = header.header.hash();
    all.header(Height(0), header, hash, from)
}

fn put_data(all: &mut Candidates, height: u64, text: &str, from: Origin) -> Kept {
    let data = data(height, text);
    let commitment = data.commitment();
    all.data(Height(0), Height(height), data, commitment, from)
}

fn last() -> Bytes {
    Bytes::from_static(b"last")
}

#[test]
fn halves_come_in_any_order_and_from_different_sides() {
    let mut all = Candidates::new(limits());
    assert_eq!(put_data(&mut all, 1, "a=1", peer()), Kept::New);
    assert_eq!(all.ready(Height(1), &last()), None);
    assert_eq!(put_header(&mut all, 1, "a=1", da(5)), Kept::New);
    let ready = all.ready(Height(1), &last()).expect("both are here");
    assert_eq!((ready.header_da, ready.data_da), (Some(DaHeight(5)), None));
    assert_eq!(put_data(&mut all, 1, "a=1", da(6)), Kept::Known, "it is seen on DA now");
    assert_eq!(all.ready(Height(1), &last()).expect("both are here").data_da, Some(DaHeight(6)));
    assert_eq!(all.lowest_da(), Some(DaHeight(5)));
    all.passed(Height(1));
    assert!(all.is_empty());
    assert_eq!((all.bytes(), all.lowest_da()), (0, None));
}

#[test]
fn a_block_without_transactions_needs_its_header_only() {
    let mut all = Candidates::new(limits());
    put_header(&mut all, 1, "", da(5));
    let ready = all.ready(Height(1), &last()).expect("there are no data to wait for");
    assert_eq!(*ready.data, *data(1, ""), "as the aggregator gossips it");
}

#[test]
fn wrong_data_block_no_height() {
    let mut all = Candidates::new(limits());
    assert_eq!(put_data(&mut all, 1, "x=1", peer()), Kept::New);
    assert_eq!(put_data(&mut all, 1, "x=2", peer()), Kept::Dropped, "one of each peer");
    assert_eq!(put_data(&mut all, 1, "x=2", another("q")), Kept::New);
    assert_eq!(put_data(&mut all, 1, "a=1", another("r")), Kept::Dropped, "nobody knows yet which is right");
    put_header(&mut all, 1, "a=1", da(5));
    assert_eq!(all.bytes(), header(1, "a=1").weight(), "the header says that both are wrong");
    assert_eq!(put_data(&mut all, 1, "x=1", peer()), Kept::Foreign);
    assert_eq!(put_data(&mut all, 1, "a=1", peer()), Kept::New);
    assert!(all.ready(Height(1), &last()).is_some());
}

#[test]
fn the_right_transactions_at_another_time_are_foreign() {
    let late = |text: &str| {
        let mut data = Data::clone(&data(1, text));
        data.metadata.as_mut().expect("it has some").time = Timestamp(2);
        Arc::new(data)
    };
    let put = |all: &mut Candidates, data: Arc<Data>| {
        let commitment = data.commitment();
        all.data(Height(0), Height(1), data, commitment, peer())
    };
    let mut all = Candidates::new(limits());
    assert_eq!(put(&mut all, late("a=1")), Kept::New);
    put_header(&mut all, 1, "a=1", da(5));
    assert_eq!(all.len(), 1, "the header says that they are another's");
    assert_eq!(put(&mut all, late("a=1")), Kept::Foreign);
    assert_eq!(put(&mut all, data(1, "a=1")), Kept::New);
}

#[test]
fn data_of_a_peer_must_name_the_data_before() {
    let mut all = Candidates::new(limits());
    put_header(&mut all, 1, "a=1", peer());
    put_data(&mut all, 1, "a=1", peer());
    let other = Bytes::from_static(b"other");
    assert_eq!(all.ready(Height(1), &other), None);
    put_data(&mut all, 1, "a=1", da(3));
    assert!(all.ready(Height(1), &other).is_some(), "on DA the proposer has signed it");
}

#[test]
fn data_that_peers_made_up_are_in_nobodys_way_once_the_block_before_is_known() {
    let mut all = Candidates::new(limits());
    let unlinked = |text: &str| {
        let mut data = Data::clone(&data(2, text));
        data.metadata.as_mut().expect("it has some").last_data_hash = Bytes::from_static(b"made up");
        Arc::new(data)
    };
    let put = |all: &mut Candidates, data: Arc<Data>, from| {
        let commitment = data.commitment();
        all.data(Height(0), Height(2), data, commitment, from)
    };
    assert_eq!(put(&mut all, unlinked("a=1"), another("liar")), Kept::New);
    assert_eq!(put(&mut all, unlinked(""), another("q")), Kept::New);
    assert_eq!(put_data(&mut all, 2, "a=1", another("honest")), Kept::Dropped, "there is no place");
    assert_eq!(put_data(&mut all, 2, "b=2", da(7)), Kept::New, "what is signed has one");
    assert_eq!(put_data(&mut all, 2, "c=3", da(7)), Kept::New);
    assert_eq!(put_data(&mut all, 2, "d=4", da(8)), Kept::Dropped, "for as much as is signed");
    all.passed(Height(2));
    assert_eq!((all.bytes(), all.len()), (0, 0));
    all.reread(Height(2));

    put(&mut all, unlinked("a=1"), another("liar"));
    put(&mut all, unlinked(""), another("q"));
    all.passed(Height(1));
    assert_eq!(all.drop_unlinked(Height(2), &last()), [another("liar")], "the other may be honest");
    assert!(all.is_empty());
    assert_eq!(put_data(&mut all, 2, "a=1", another("honest")), Kept::New);
    assert_eq!(all.drop_unlinked(Height(2), &last()), []);
    put_header(&mut all, 2, "a=1", peer());
    assert!(all.ready(Height(2), &last()).is_some());
}

#[test]
fn another_header_of_one_height_is_a_fork() {
    let mut all = Candidates::new(limits());
    put_header(&mut all, 1, "a=1", da(5));
    assert_eq!(put_header(&mut all, 1, "a=1", peer()), Kept::Known);
    let fork = put_header(&mut all, 1, "b=2", peer());
    assert_eq!(fork, Kept::Fork(header(1, "a=1"), da(5)));
}

#[test]
fn a_header_that_may_have_a_twin_waits_until_the_one_above_names_it() {
    let mut all = Candidates::new(limits());
    put_header(&mut all, 1, "", peer());
    assert!(all.settle(Height(1)), "it is signed in the current encoding");
    let known = header(1, "");
    let twin = known.header.twin().expect("zeros for what is absent");
    all.may_have_a_twin(Height(1));
    assert!(!all.settle(Height(1)));
    let other = Arc::new(SignedHeader { header: twin.clone(), ..SignedHeader::clone(&known) });
    assert_eq!(all.header(Height(0), other.clone(), twin.hash(), da(3)), Kept::Twin);
    put_header(&mut all, 1, "", da(2));
    assert_eq!(all.lowest_da(), Some(DaHeight(2)), "either may be the chain's");
    let mut above = SignedHeader::clone(&header(2, ""));
    above.header.last_header_hash = twin.hash().to_bytes();
    let hash = above.header.hash();
    all.header(Height(0), Arc::new(above), hash, peer());
    assert!(all.settle(Height(1)));
    assert_eq!(all.header_of(Height(1)), Some((other, twin.hash(), peer())));
    assert_eq!(all.lowest_da(), Some(DaHeight(3)));
    all.passed(Height(2));
    assert_eq!((all.len(), all.bytes(), all.lowest_da()), (0, 0, None));
}

#[test]
fn what_is_too_far_ahead_is_read_again_when_its_turn_comes() {
    let mut all = Candidates::new(limits());
    assert_eq!(put_header(&mut all, 11, "", da(7)), Kept::Dropped);
    assert_eq!(put_header(&mut all, 12, "", da(8)), Kept::Dropped);
    assert_eq!(all.lowest_da(), Some(DaHeight(7)), "a restart would find it");
    assert_eq!(all.reread(Height(9)), None);
    assert_eq!(all.reread(Height(10)), Some(DaHeight(7)));
    assert_eq!(all.reread(Height(10)), None, "once");
    assert_eq!(put_header(&mut all, 11, "", peer()), Kept::Dropped);
    assert_eq!(all.reread(Height(10)), None, "a peer is asked again, not DA");
}

#[test]
fn what_came_before_its_time_is_read_again_when_its_time_has_come() {
    let mut all = Candidates::new(limits());
    all.not_yet(Height(7), Timestamp(70), &peer());
    assert_eq!(all.lowest_da(), None, "a peer is asked again");
    all.not_yet(Height(7), Timestamp(70), &da(9));
    all.not_yet(Height(6), Timestamp(60), &da(11));
    assert_eq!(all.lowest_da(), Some(DaHeight(9)), "a restart would find it");
    assert_eq!(all.reread_early(Height(5), false, Timestamp(59)), None);
    assert_eq!(all.reread_early(Height(4), true, Timestamp(59)), None, "the tip waits for something else");
    assert_eq!(all.reread_early(Height(4), false, Timestamp(60)), Some(DaHeight(9)));
    assert_eq!(all.lowest_da(), None, "once");
    all.not_yet(Height(6), Timestamp(60), &da(11));
    assert_eq!(all.reread_early(Height(5), true, Timestamp(59)), Some(DaHeight(11)), "nothing else is left");
}

#[test]
fn a_header_that_waits_for_a_dropped_one_above_it_has_that_read_again() {
    let mut all = Candidates::new(limits());
    put_header(&mut all, 10, "", peer());
    assert_eq!(put_header(&mut all, 11, "", da(7)), Kept::Dropped, "too far ahead");
    assert_eq!(all.reread(Height(9)), None);
    all.may_have_a_twin(Height(10));
    assert_eq!(all.reread(Height(8)), None, "the next one is another");
    assert_eq!(all.reread(Height(9)), Some(DaHeight(7)));
}

#[test]
fn the_header_above_the_next_finds_room_whatever_waits() {
    let limits = Limits { bytes: 300, ..limits() };
    let mut all = Candidates::new(limits);
    let big = "k=".to_owned() + &"v".repeat(400);
    put_data(&mut all, 1, &big, peer());
    assert_eq!(put_header(&mut all, 1, &big, peer()), Kept::New);
    assert_eq!(put_header(&mut all, 2, "", peer()), Kept::New, "the one below may wait for it");
    assert_eq!(put_header(&mut all, 3, "", peer()), Kept::Dropped);
}

#[test]
fn the_data_of_the_next_block_find_room_and_the_highest_go_first() {
    let mut all = Candidates::new(limits());
    let big = "k=".to_owned() + &"v".repeat(400);
    assert_eq!(put_data(&mut all, 5, &big, da(5)), Kept::New);
    assert_eq!(put_data(&mut all, 6, &big, da(6)), Kept::New);
    assert_eq!(put_data(&mut all, 7, &big, da(7)), Kept::Dropped, "it is the highest itself");
    assert_eq!(put_data(&mut all, 4, &big, da(4)), Kept::New, "six made room for it");
    assert_eq!(put_data(&mut all, 1, &big, da(1)), Kept::New, "the next block always has room");
    assert!(all.bytes() <= 3_000, "{}", all.bytes());
    put_header(&mut all, 6, &big, da(6));
    assert_eq!(all.reread(Height(5)), Some(DaHeight(6)), "what was dropped is read again");
}

#[test]
fn a_rejected_half_makes_room_for_the_right_one() {
    let mut all = Candidates::new(limits());
    put_header(&mut all, 1, "a=1", peer());
    all.reject(Height(1));
    assert_eq!(put_header(&mut all, 1, "b=2", da(5)), Kept::New);
    put_data(&mut all, 1, "b=2", da(6));
    all.reject_data(Height(1), &da(6));
    assert_eq!((all.bytes(), all.lowest_da()), (header(1, "b=2").weight(), Some(DaHeight(5))));
}

#[test]
fn what_waits_is_counted_as_it_is_in_memory() {
    let mut all = Candidates::new(Limits { ahead: 10_000, bytes: 1 << 20, per_height: 2 });
    let empty = |height| {
        let data = data(height, "");
        Arc::new(Data { txs: vec![Tx(Bytes::new()); 10_000], ..Data::clone(&data) })
    };
    let kept = (2..100).filter(|height| {
        let data = empty(*height);
        let commitment = data.commitment();
        all.data(Height(0), Height(*height), data, commitment, peer()) == Kept::New
    });
    assert_eq!(kept.count(), 3, "ten thousand empty transactions take 320 kB");
    let mut all = Candidates::new(Limits { ahead: 10_000, bytes: 1 << 20, per_height: 2 });
    let kept = (2..10_000).filter(|height| put_header(&mut all, *height, "", peer()) == Kept::New).count();
    assert!((100..3_000).contains(&kept), "{kept} headers in a megabyte");
    assert!(all.bytes() <= 1 << 20);
    all.passed(Height(10_000));
    assert_eq!(all.bytes(), 0);
}
