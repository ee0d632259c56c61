//! Between Raft and a supervisor: what it hears of leadership may be late, and of several changes
//! only the last one arrives.

use actix::{Actor, Context, Handler, Message, Recipient};
use baton_messages::raft::LeadershipChanged;

/// From now on hints are late, or arrive at once.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Late(pub(super) bool);

pub(super) struct Relay {
    to: Recipient<LeadershipChanged>,
    late: bool,
    last: Option<LeadershipChanged>,
}

impl Relay {
    pub(super) const fn new(to: Recipient<LeadershipChanged>) -> Self {
        Self { to, late: false, last: None }
    }
}

impl Actor for Relay {
    type Context = Context<Self>;
}

impl Handler<LeadershipChanged> for Relay {
    type Result = ();

    fn handle(&mut self, message: LeadershipChanged, _: &mut Context<Self>) {
        match self.late {
            true => self.last = Some(message),
            false => self.to.do_send(message),
        }
    }
}

impl Handler<Late> for Relay {
    type Result = ();

    fn handle(&mut self, message: Late, _: &mut Context<Self>) {
        self.late = message.0;
        if let (false, Some(last)) = (self.late, self.last.take()) {
            self.to.do_send(last);
        }
    }
}
