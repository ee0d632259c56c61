//! A signer whose guard follows the signatures in the log, so that a new leader can sign.
//!
//! Every member has a guard of its own; those that follow learn from the log what was signed.

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use baton::wiring::SignerPorts;
use baton_actors::signer::{self, Signer};
use baton_messages::chain::Signer as Identity;
use baton_messages::signer::{
    CheckGuard, GetSignerView, NoteSigned, SignData, SignEnvelope, SignError, SignHeader, SignerView,
};
use baton_storage::Reader;
use bytes::Bytes;

/// Stands before the real signer.
pub(super) struct FollowingSigner {
    ports: SignerPorts,
    note: Recipient<NoteSigned>,
    reader: Reader,
    identity: Identity,
}

impl FollowingSigner {
    pub(super) fn ports(
        config: signer::Config,
        parts: signer::Parts,
        reader: Reader,
        identity: Identity,
    ) -> SignerPorts {
        let progress = signer::guard::Progress { last_block: reader.tip().height, last_signed: None };
        let signer = Signer::open(config, parts, &progress).start();
        let (ports, note) = (SignerPorts::of(&signer), signer.recipient());
        SignerPorts::of(&Self { ports, note, reader, identity }.start())
    }
}

impl Actor for FollowingSigner {
    type Context = Context<Self>;
}

fn gone<E>(_: E) -> SignError {
    SignError::Key("the signer is gone".to_owned())
}

macro_rules! passed_on {
    ($message:ty, $port:ident, $reply:ty) => {
        impl Handler<$message> for FollowingSigner {
            type Result = ResponseFuture<Result<$reply, SignError>>;

            fn handle(&mut self, message: $message, _: &mut Context<Self>) -> Self::Result {
                let asked = self.ports.$port.send(message);
                Box::pin(async move { asked.await.map_err(gone)? })
            }
        }
    };
}

passed_on!(SignHeader, sign, Bytes);
passed_on!(SignEnvelope, sign_envelope, Bytes);
passed_on!(SignData, sign_data, Bytes);
passed_on!(NoteSigned, note_signed, ());

impl Handler<CheckGuard> for FollowingSigner {
    type Result = ResponseFuture<Result<(), SignError>>;

    fn handle(&mut self, message: CheckGuard, _: &mut Context<Self>) -> Self::Result {
        let signed = message.last_signed.and_then(|(height, _)| {
            self.reader.signed_header(height, &self.identity).expect("the store is readable")
        });
        let noted = signed.map(|signed| self.note.send(NoteSigned { signed: signed.into() }));
        let checked = self.ports.check_guard.send(message);
        Box::pin(async move {
            if let Some(noted) = noted {
                noted.await.map_err(gone)??;
            }
            checked.await.map_err(gone)?
        })
    }
}

impl Handler<GetSignerView> for FollowingSigner {
    type Result = ResponseFuture<SignerView>;

    fn handle(&mut self, message: GetSignerView, _: &mut Context<Self>) -> Self::Result {
        let asked = self.ports.view.send(message);
        Box::pin(async move { asked.await.unwrap_or_default() })
    }
}
