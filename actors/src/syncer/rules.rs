//! What a piece must be before it may wait, and a block before it may enter the store.

use baton_messages::chain::{Data, Header, SignedHeader, State};
use baton_messages::genesis::Genesis;
use baton_messages::types::{Height, StateRoot, Timestamp, Tip};
use baton_messages::wire::validate::{Invalid, NotNext, Payload};

/// Why a piece is not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is not even a piece of a block.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It belongs to another chain.
    #[error("it belongs to chain {0}")]
    Chain(String),
    /// Somebody else proposes this chain's blocks.
    #[error("its proposer is {0}, not the chain's")]
    Proposer(String),
    /// The chain begins further up.
    #[error("height {0} is below the chain's first")]
    Height(Height),
}

impl Wrong {
    /// Time may cure it.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Invalid(Invalid::FromTheFuture { .. }))
    }
}

/// Checks everything about a header that does not depend on the block before it: chain, proposer,
/// time, signer and signature. Returns what the signature is over.
///
/// # Errors
///
/// The first rule that is broken.
pub fn header(genesis: &Genesis, signed: &SignedHeader, now: Timestamp) -> Result<Payload, Wrong> {
    of_chain(genesis, &signed.header)?;
    Ok(signed.validate(now)?)
}

/// Checks that a header is of this chain and names its proposer.
///
/// # Errors
///
/// The first rule that is broken.
pub fn of_chain(genesis: &Genesis, header: &Header) -> Result<(), Wrong> {
    if header.chain_id != genesis.chain_id {
        return Err(Wrong::Chain(header.chain_id.clone()));
    }
    if header.height < genesis.initial_height {
        return Err(Wrong::Height(header.height));
    }
    if header.proposer_address != genesis.proposer_address {
        return Err(Wrong::Proposer(hex::encode(&header.proposer_address)));
    }
    Ok(())
}

/// Checks what can be checked of data without their header. Returns their height.
///
/// # Errors
///
/// The first rule that is broken.
pub fn data(genesis: &Genesis, data: &Data, now: Timestamp) -> Result<Height, Wrong> {
    data.validate(now)?;
    let metadata = data.metadata.as_ref().ok_or(Invalid::NoMetadata)?;
    if metadata.chain_id != genesis.chain_id {
        return Err(Wrong::Chain(metadata.chain_id.clone()));
    }
    if metadata.height < genesis.initial_height {
        return Err(Wrong::Height(metadata.height));
    }
    Ok(metadata.height)
}

/// Checks that a header is the one after the tip, and that its state root is the one that this
/// node's engine has computed. The first block has no parent to forgive it anything either: it
/// stands at the initial height, at the time of the genesis, on the engine's first root.
///
/// # Errors
///
/// `NotNext`; of it, only `Parent` and `StateRoot` say that something is broken for good.
pub fn next(genesis: &Genesis, tip: &Tip, root: &StateRoot, header: &Header) -> Result<(), NotNext> {
    let mut state = State::before_first(genesis, root);
    if tip.height > Height(0) {
        state.last_block_height = tip.height;
        state.last_block_time = Some(tip.time);
        state.last_header_hash = tip.hash.to_bytes();
    }
    state.validate_next(header)?;
    if tip.height == Height(0) {
        if header.time != genesis.start_time {
            return Err(NotNext::Time { found: header.time, last: genesis.start_time });
        }
        if !header.last_header_hash.is_empty() {
            let found = hex::encode(&header.last_header_hash);
            return Err(NotNext::Parent { found, expected: String::new() });
        }
        if header.app_hash != root.0 {
            let (found, expected) = (hex::encode(&header.app_hash), root.to_string());
            return Err(NotNext::StateRoot { found, expected });
        }
    }
    Ok(())
}

/// As [`next`], without an engine: nothing is said about the state root, which only those who
/// execute can know.
///
/// # Errors
///
/// `NotNext`; of it, only `Parent` says that something is broken for good.
pub fn next_header(genesis: &Genesis, tip: &Tip, header: &Header) -> Result<(), NotNext> {
    next(genesis, tip, &StateRoot(header.app_hash.clone()), header)
}

#[cfg(test)]
mod tests {
    use baton_messages::chain::Signer;
    use baton_messages::types::{DaHeight, Hash};
    use bytes::Bytes;

    use super::*;
    use crate::signer::key::{FileKey, Key};

    fn genesis() -> Genesis {
        Genesis {
            chain_id: "c".into(),
            start_time: Timestamp(100),
            initial_height: Height(3),
            proposer_address: Bytes::from_static(&[1; 32]),
            da_start_height: DaHeight(0),
            da_epoch_forced_inclusion: 50,
        }
    }

    fn root() -> StateRoot {
        StateRoot(Bytes::from_static(b"root"))
    }

    fn first() -> Header {
        Header {
            height: Height(3),
            time: Timestamp(100),
            app_hash: root().0,
            proposer_address: genesis().proposer_address,
            chain_id: "c".into(),
            ..Header::default()
        }
    }

    #[test]
    fn the_first_block_of_a_followed_chain_has_no_free_pass() {
        let check = |header: &Header| next(&genesis(), &Tip::default(), &root(), header);
        assert_eq!(check(&first()), Ok(()));
        assert!(matches!(check(&Header { height: Height(4), ..first() }), Err(NotNext::Height { .. })));
        assert!(matches!(check(&Header { time: Timestamp(101), ..first() }), Err(NotNext::Time { .. })));
        let parent = Bytes::from_static(&[9; 32]);
        assert!(matches!(
            check(&Header { last_header_hash: parent, ..first() }),
            Err(NotNext::Parent { .. })
        ));
        let other = Bytes::from_static(b"other");
        assert!(matches!(check(&Header { app_hash: other, ..first() }), Err(NotNext::StateRoot { .. })));
    }

    #[test]
    fn a_later_block_stands_on_the_tip_and_may_have_its_time() {
        let tip = Tip { height: Height(3), hash: Hash([7; 32]), time: Timestamp(100), ..Tip::default() };
        let good = Header { height: Height(4), last_header_hash: tip.hash.to_bytes(), ..first() };
        let check = |header: &Header| next(&genesis(), &tip, &root(), header);
        assert_eq!(check(&good), Ok(()));
        assert!(matches!(check(&Header { time: Timestamp(99), ..good.clone() }), Err(NotNext::Time { .. })));
        let elsewhere = Header { last_header_hash: Bytes::from_static(&[8; 32]), ..good.clone() };
        assert!(matches!(check(&elsewhere), Err(NotNext::Parent { .. })));
        let other = Header { app_hash: Bytes::from_static(b"other"), ..good };
        assert!(matches!(check(&other), Err(NotNext::StateRoot { .. })));
    }

    #[test]
    fn a_header_alone_has_no_free_pass_either_but_for_its_state_root() {
        let tip = Tip { height: Height(3), hash: Hash([7; 32]), time: Timestamp(100), ..Tip::default() };
        let app_hash = Bytes::from_static(b"whatever");
        let good = Header { height: Height(4), last_header_hash: tip.hash.to_bytes(), app_hash, ..first() };
        let check = |header: &Header| next_header(&genesis(), &tip, header);
        assert_eq!(check(&good), Ok(()));
        let elsewhere = Header { last_header_hash: Bytes::from_static(&[8; 32]), ..good.clone() };
        assert!(matches!(check(&elsewhere), Err(NotNext::Parent { .. })));
        assert!(matches!(check(&Header { time: Timestamp(99), ..good.clone() }), Err(NotNext::Time { .. })));
        assert!(matches!(check(&Header { height: Height(5), ..good }), Err(NotNext::Height { .. })));
        let begins = |header: &Header| next_header(&genesis(), &Tip::default(), header);
        assert_eq!(begins(&first()), Ok(()));
        let parent = Bytes::from_static(&[9; 32]);
        let hangs = Header { last_header_hash: parent, ..first() };
        assert!(matches!(begins(&hangs), Err(NotNext::Parent { .. })));
    }

    #[test]
    fn headers_of_other_chains_proposers_and_below_the_beginning_are_named_before_any_signature_is_checked() {
        let check = |header: Header| {
            super::header(&genesis(), &SignedHeader { header, ..SignedHeader::default() }, Timestamp(200))
        };
        assert!(matches!(check(Header { chain_id: "d".into(), ..first() }), Err(Wrong::Chain(_))));
        assert!(matches!(check(Header { height: Height(2), ..first() }), Err(Wrong::Height(Height(2)))));
        let other = Header { proposer_address: Bytes::from_static(&[2; 32]), ..first() };
        assert!(matches!(check(other), Err(Wrong::Proposer(_))));
        assert!(matches!(check(first()), Err(Wrong::Invalid(Invalid::NoSignature))));
    }

    #[test]
    fn only_of_a_header_that_the_proposer_signed_is_said_that_time_may_cure_it() {
        let key = FileKey::from_seed(&[3; 32]);
        let signer = Signer::ed25519(&key.public());
        let genesis = Genesis { proposer_address: signer.address.clone(), ..genesis() };
        let time = Timestamp(u64::from(u32::MAX) * 1_000_000_000);
        let header = Header { time, proposer_address: signer.address.clone(), ..first() };
        let signature = key.sign(&header.encode()).expect("it signs");
        let far = SignedHeader { header, signature, signer };
        let check = |signed: &SignedHeader| super::header(&genesis, signed, Timestamp(200));
        assert!(check(&far).is_err_and(|wrong| wrong.may_pass()));
        for signature in [Bytes::new(), Bytes::from_static(b"x"), Bytes::from_static(&[7; 64])] {
            let forged = SignedHeader { signature, ..far.clone() };
            assert!(check(&forged).is_err_and(|wrong| !wrong.may_pass()), "{forged:?}");
        }
    }
}
