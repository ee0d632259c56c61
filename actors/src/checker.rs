//! The checker looks at signatures of headers, for a node that follows.
//!
//! A signature costs more than everything else about a header, so this has a thread of its own, beside
//! the syncer's. It knows nothing of the chain and keeps nothing.

use std::sync::Arc;

use actix::{Actor, Context, Handler, MessageResult};
use baton_messages::chain::SignedHeader;
use baton_messages::follow::CheckHeaders;
use baton_messages::mutation::{Mutation, planted};
use baton_messages::wire::validate::Payload;

use crate::world::World;

/// The checker.
#[derive(Debug)]
pub struct Checker {
    world: World,
}

impl Checker {
    /// A checker with this clock.
    #[must_use]
    pub const fn new(world: World) -> Self {
        Self { world }
    }
}

impl Actor for Checker {
    type Context = Context<Self>;
}

impl Handler<CheckHeaders> for Checker {
    type Result = MessageResult<CheckHeaders>;

    fn handle(&mut self, message: CheckHeaders, _: &mut Context<Self>) -> Self::Result {
        let now = self.world.wall();
        let headers = message.0.iter().map(Arc::as_ref);
        if planted(Mutation::UnsignedHeaders) {
            let unsigned = |signed: &SignedHeader| signed.header.validate(now).map(|()| Payload::Wire);
            return MessageResult(headers.map(unsigned).collect());
        }
        MessageResult(headers.map(|signed| signed.validate(now)).collect())
    }
}

#[cfg(test)]
mod tests {
    use baton_messages::chain::{Header, SignedHeader, Signer};
    use baton_messages::types::{Height, Timestamp};
    use baton_messages::wire::validate::Invalid;
    use bytes::Bytes;

    use super::*;
    use crate::signer::key::{FileKey, Key};
    use crate::world::Clock;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp(1_000)
        }
    }

    fn signed(time: u64) -> SignedHeader {
        let key = FileKey::from_seed(&[1; 32]);
        let signer = Signer::ed25519(&key.public());
        let header = Header {
            height: Height(3),
            time: Timestamp(time),
            proposer_address: signer.address.clone(),
            chain_id: "c".to_owned(),
            ..Header::default()
        };
        let [payload, _] = header.signature_payloads();
        SignedHeader { signature: key.sign(&payload).expect("it signs"), header, signer }
    }

    #[test]
    fn what_its_signer_has_not_signed_or_will_sign_one_day_is_told_apart_from_what_is_right() {
        let forged = SignedHeader { signature: Bytes::from(vec![7; 64]), ..signed(7) };
        let another = SignedHeader { header: Header { height: Height(4), ..signed(7).header }, ..signed(7) };
        let asked = [signed(7), forged, another, signed(u64::from(u32::MAX) * 1_000_000_000)];
        let asked = CheckHeaders(asked.map(Arc::new).into());
        let mut checker = Checker::new(World::new(Arc::new(Still), 1));
        let MessageResult(verdicts) = checker.handle(asked, &mut Context::new());
        assert_eq!(verdicts.len(), 4, "one for each, in order");
        assert_eq!(verdicts[0], Ok(Payload::Wire));
        assert!(matches!(verdicts[1], Err(Invalid::Key(_))), "{:?}", verdicts[1]);
        assert!(matches!(verdicts[2], Err(Invalid::Key(_))), "{:?}", verdicts[2]);
        assert!(matches!(verdicts[3], Err(Invalid::FromTheFuture { .. })), "{:?}", verdicts[3]);
    }
}
