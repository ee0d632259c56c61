//! Key commands on real homes.

use std::os::unix::fs::PermissionsExt;

use baton_actors::signer::audit;
use baton_actors::signer::slot::{Record, SLOT_BYTES};
use baton_messages::types::DaHeight;

use super::*;

const FAST: Import = Import { force: false, kdf: Kdf::INSECURE };

struct Fixture {
    _directory: tempfile::TempDir,
    home: Home,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path().join("home"));
        Self { _directory: directory, home }
    }

    fn events(&self) -> Vec<Event> {
        let (lines, unreadable) = audit::read(&self.home.audit()).unwrap();
        assert_eq!(unreadable, 0);
        lines.into_iter().map(|line| line.event).collect()
    }

    fn record(&self) -> Record {
        match slot::judge(&FileGuard::peek(&self.home.guard()).unwrap()) {
            Verdict::Rules { record, .. } => *record,
            other => panic!("no guard: {other:?}"),
        }
    }
}

fn passphrase() -> Passphrase {
    Passphrase::new(b"correct horse").unwrap()
}

fn key() -> FileKey {
    FileKey::from_seed(&std::array::from_fn(|i| u8::try_from(i).unwrap()))
}

fn private_hex() -> String {
    hex::encode(key().to_pair().as_slice())
}

fn genesis() -> Genesis {
    Genesis {
        chain_id: "chain-1".into(),
        start_time: Timestamp(1),
        initial_height: Height(1),
        proposer_address: key().address().to_bytes(),
        da_start_height: DaHeight(0),
        da_epoch_forced_inclusion: 50,
    }
}

fn chain() -> ChainId {
    ChainId { name: "chain-1".into(), genesis: genesis().hash() }
}

fn committed(tip: u64, signed: u64) -> Committed {
    let hash = |height: u64| Hash::of(&height.to_be_bytes());
    let tip = Tip { height: Height(tip), hash: hash(tip), time: Timestamp(1), term: Term(4) };
    Committed { tip, last_signed: (signed > 0).then(|| (Height(signed), hash(signed))) }
}

#[test]
fn what_is_exported_can_be_imported_elsewhere() {
    let (here, there) = (Fixture::new(), Fixture::new());
    let created = create(&here.home, &passphrase(), Kdf::INSECURE).unwrap();
    let exported = export(&here.home, &passphrase()).unwrap();
    assert_eq!(exported.len(), 128);
    let imported = import(&there.home, format!("{}\n", *exported).as_bytes(), &passphrase(), FAST).unwrap();
    assert_eq!(imported, created);
    assert_eq!(show(&there.home).unwrap(), created);
    assert_eq!(open(&there.home, &passphrase()).unwrap().address().to_string(), created.address);
    let address = open(&here.home, &passphrase()).unwrap().address();
    assert_eq!(here.events(), [Event::KeyExported { address }]);
    assert_eq!(there.events(), [Event::KeyImported { address }]);
}

#[test]
fn address_and_public_key_are_ev_nodes() {
    let fixture = Fixture::new();
    let shown = import(&fixture.home, private_hex().as_bytes(), &passphrase(), FAST).unwrap();
    assert_eq!(shown.address, "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c");
    assert_eq!(shown.public_key, "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8");
}

#[test]
fn a_key_is_replaced_only_by_force() {
    let fixture = Fixture::new();
    let first = create(&fixture.home, &passphrase(), Kdf::INSECURE).unwrap();
    let refused = import(&fixture.home, private_hex().as_bytes(), &passphrase(), FAST).unwrap_err();
    assert!(refused.to_string().contains("--force"), "{refused}");
    assert!(create(&fixture.home, &passphrase(), Kdf::INSECURE).is_err());
    assert_eq!(show(&fixture.home).unwrap(), first);
    let force = Import { force: true, ..FAST };
    let replaced = import(&fixture.home, private_hex().as_bytes(), &passphrase(), force).unwrap();
    assert_eq!(show(&fixture.home).unwrap(), replaced);
    assert_eq!(fixture.events(), [Event::KeyImported { address: key().address() }]);
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let fixture = Fixture::new();
    let mut mismatched = private_hex();
    mismatched.replace_range(126.., "00");
    for wrong in ["", "zz", "abcdef", &private_hex()[..126], &mismatched, &format!("{}00", private_hex())] {
        let refused = import(&fixture.home, wrong.as_bytes(), &passphrase(), FAST).unwrap_err();
        assert!(matches!(refused, KeysError::NotAKey), "{refused}");
        assert!(wrong.len() < 3 || !refused.to_string().contains(wrong));
    }
    assert!(!fixture.home.signer().exists());
}

#[test]
fn a_wrong_passphrase_exports_nothing_and_a_missing_key_is_named() {
    let fixture = Fixture::new();
    let missing = export(&fixture.home, &passphrase()).unwrap_err().to_string();
    assert!(missing.contains("signer.json does not exist"), "{missing}");
    create(&fixture.home, &passphrase(), Kdf::INSECURE).unwrap();
    let wrong = export(&fixture.home, &Passphrase::new(b"incorrect horse").unwrap()).unwrap_err();
    assert!(matches!(wrong, KeysError::KeyFile(KeyFileError::WrongPassphrase { .. })), "{wrong}");
    assert_eq!(fixture.events(), []);
}

#[test]
fn passphrases_and_keys_are_read_from_private_files_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    files::write_private(&path, b" abc\n", Overwrite::Refuse).unwrap();
    assert!(read_passphrase(&path).is_ok());
    assert_eq!(*read_private_hex(&path).unwrap(), b" abc\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for refused in [read_passphrase(&path).map(|_| ()), read_private_hex(&path).map(|_| ())] {
        assert!(refused.unwrap_err().to_string().contains("chmod 600"));
    }
}

#[test]
fn a_missing_guard_is_set_where_the_signatures_end_once_confirmed() {
    let fixture = Fixture::new();
    assert_eq!(show_guard(&fixture.home).unwrap().state, "missing");
    let asked = guard_from_committed(&fixture.home, &genesis(), &committed(9, 7), false).unwrap_err();
    assert!(asked.to_string().contains("--yes"), "{asked}");
    assert_eq!((show_guard(&fixture.home).unwrap().state, fixture.events()), ("missing", vec![]));

    let plan = guard_from_committed(&fixture.home, &genesis(), &committed(9, 7), true).unwrap();
    let record = fixture.record();
    let (height, hash) = committed(9, 7).last_signed.unwrap();
    assert_eq!((plan.height, plan.hash, plan.tip), (height, hash, Height(9)));
    assert_eq!((record.chain, record.height, record.hash, record.term), (chain(), height, hash, Term(4)));
    assert!(matches!(&fixture.events()[..], [Event::GuardSet { height: Height(7), .. }]));
    let shown = show_guard(&fixture.home).unwrap();
    assert_eq!((shown.state, shown.height, shown.term), ("set", Some(7), Some(4)));
    assert!(shown.to_string().contains("chain \"chain-1\", height 7, term 4"), "{shown}");
}

#[test]
fn a_guard_in_order_is_not_replaced() {
    let fixture = Fixture::new();
    guard_from_committed(&fixture.home, &genesis(), &committed(9, 7), true).unwrap();
    let again = guard_from_committed(&fixture.home, &genesis(), &committed(9, 7), true).unwrap_err();
    assert!(matches!(again, KeysError::GuardInOrder { height: Height(7), .. }), "{again}");
}

#[test]
fn damaged_older_and_ahead_guards_are_replaced() {
    let fixture = Fixture::new();
    files::write_private(&fixture.home.guard(), &[1; 2 * SLOT_BYTES], Overwrite::Refuse).unwrap();
    assert_eq!(show_guard(&fixture.home).unwrap().state, "damaged");
    for (tip, signed) in [(9, 7), (20, 18), (12, 10), (12, 0)] {
        let plan = guard_from_committed(&fixture.home, &genesis(), &committed(tip, signed), true);
        assert_eq!(plan.unwrap().height, Height(signed));
        assert_eq!(fixture.record().height, Height(signed));
        // Torn away from under it: the next round finds nothing it can rely on.
        if signed == 10 {
            std::fs::remove_file(fixture.home.guard()).unwrap();
        }
    }
    assert_eq!(show_guard(&fixture.home).unwrap().state, "fresh");
}

#[test]
fn the_guard_of_another_chain_is_not_replaced() {
    let fixture = Fixture::new();
    guard_from_committed(&fixture.home, &genesis(), &committed(9, 7), true).unwrap();
    let other = Genesis { chain_id: "chain-2".into(), ..genesis() };
    let refused = guard_from_committed(&fixture.home, &other, &committed(3, 3), true).unwrap_err();
    assert!(matches!(refused, KeysError::Refused(Refusal::OtherChain { .. })), "{refused}");
    assert_eq!(fixture.record().height, Height(7));
}

#[test]
fn a_guard_in_use_can_be_shown_and_not_replaced() {
    let fixture = Fixture::new();
    guard_from_committed(&fixture.home, &genesis(), &committed(9, 7), true).unwrap();
    let _running = FileGuard::open(&fixture.home.guard()).unwrap();
    assert_eq!(show_guard(&fixture.home).unwrap().height, Some(7));
    let refused = guard_from_committed(&fixture.home, &genesis(), &committed(20, 18), true).unwrap_err();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
}

#[test]
fn the_hosts_key_is_made_once_and_is_private() {
    let fixture = Fixture::new();
    let made = node_key(&fixture.home).unwrap();
    assert_eq!(node_key(&fixture.home).unwrap().public(), made.public());
    let mode = std::fs::metadata(fixture.home.node_key()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_hosts_key_file_is_ev_nodes() {
    // Vector «keys-ed25519-p2p».
    let key = FileKey::from_seed(&std::array::from_fn(|i| u8::try_from(0x20 + i).unwrap()));
    let json = concat!(
        r#"{"priv_key":"ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8prLrhQbzK8LIuGpTTTQvHNh5SbQv+EsiXlLyTIpZt1w==","#,
        r#""pub_key":"Kay64UG8yvCyLhqU000LxzYeUm0L/hLIl5S8kyKWbdc="}"#
    );
    assert_eq!(*node_key_json(&key), json.as_bytes());
    let fixture = Fixture::new();
    files::write_private(&fixture.home.node_key(), json.as_bytes(), Overwrite::Refuse).unwrap();
    assert_eq!(node_key(&fixture.home).unwrap().public(), key.public());
}

#[test]
fn a_damaged_key_of_the_host_is_refused_and_kept() {
    for damage in
        ["", "{}", "[]", r#"{"priv_key":"AAAA","pub_key":"AAAA"}"#, r#"{"priv_key":7,"pub_key":""}"#]
    {
        let fixture = Fixture::new();
        files::write_private(&fixture.home.node_key(), damage.as_bytes(), Overwrite::Refuse).unwrap();
        let refused = node_key(&fixture.home).unwrap_err();
        assert!(matches!(refused, KeysError::NodeKey { .. }), "{refused}");
        assert_eq!(std::fs::read_to_string(fixture.home.node_key()).unwrap(), damage);
    }
}
