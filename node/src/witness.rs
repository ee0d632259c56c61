//! What stands where a witness has nothing: no engine, no key, no DA layer.
//!
//! A witness never holds a grant, so nobody asks any of this; whoever does gets a refusal that
//! says why.

use actix::{Actor, Context, Handler, MessageResult};
use baton_messages::da::{DaError, GetBlobs, GetDaHead, SubmitBlobs};
use baton_messages::engine::{
    EngineError, ExecuteBlock, FilterTxs, GetPosition, InitChain, PendingTxs, Rollback, SetFinal,
};
use baton_messages::signer::{
    CheckGuard, GetSignerView, NoteSigned, SignData, SignEnvelope, SignError, SignHeader, SignerView,
};

/// Refuses everything that an engine, a signer or a DA layer does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absent;

impl Actor for Absent {
    type Context = Context<Self>;
}

macro_rules! refuses {
    ($($message:ty => $error:expr),* $(,)?) => {$(
        impl Handler<$message> for Absent {
            type Result = <$message as actix::Message>::Result;

            fn handle(&mut self, _: $message, _: &mut Context<Self>) -> Self::Result {
                Err($error)
            }
        }
    )*};
}

fn no_engine() -> EngineError {
    EngineError::Unavailable("a witness has no engine".to_owned())
}

fn no_key() -> SignError {
    SignError::Key("a witness has no key".to_owned())
}

fn no_da() -> DaError {
    DaError::Unavailable("a witness has no DA layer".to_owned())
}

refuses! {
    InitChain => no_engine(),
    GetPosition => no_engine(),
    PendingTxs => no_engine(),
    FilterTxs => no_engine(),
    ExecuteBlock => no_engine(),
    Rollback => no_engine(),
    SetFinal => no_engine(),
    CheckGuard => no_key(),
    SignHeader => no_key(),
    SignEnvelope => no_key(),
    SignData => no_key(),
    SubmitBlobs => no_da(),
    GetBlobs => no_da(),
    GetDaHead => no_da(),
}

impl Handler<NoteSigned> for Absent {
    type Result = Result<(), SignError>;

    /// There is no guard to move.
    fn handle(&mut self, _: NoteSigned, _: &mut Context<Self>) -> Self::Result {
        Ok(())
    }
}

impl Handler<GetSignerView> for Absent {
    type Result = MessageResult<GetSignerView>;

    fn handle(&mut self, _: GetSignerView, _: &mut Context<Self>) -> Self::Result {
        MessageResult(SignerView::default())
    }
}
