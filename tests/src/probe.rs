//! Probes: actors that record what they hear and answer by a function.

use std::sync::{Arc, Mutex, PoisonError};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler, Message, Recipient};

/// What a probe has heard.
#[derive(Clone, Debug)]
pub struct Probe<M> {
    heard: Arc<Mutex<Vec<M>>>,
}

impl<M> Probe<M> {
    /// Takes everything heard so far.
    #[must_use]
    pub fn take(&self) -> Vec<M> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How much was heard and not taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

type Answers<M> = Box<dyn FnMut(&M) -> <M as Message>::Result>;

struct Answering<M: Message> {
    heard: Arc<Mutex<Vec<M>>>,
    answer: Answers<M>,
}

impl<M: Message + 'static> Actor for Answering<M> {
    type Context = Context<Self>;
}

/// What a function answered, handed back as it is.
struct Answer<T>(T);

impl<M, T> MessageResponse<Answering<M>, M> for Answer<T>
where
    M: Message<Result = T> + 'static,
{
    fn handle(self, _: &mut Context<Answering<M>>, reply: Option<OneshotSender<T>>) {
        if let Some(reply) = reply {
            let _ = reply.send(self.0);
        }
    }
}

impl<M> Handler<M> for Answering<M>
where
    M: Message + Clone + 'static,
    M::Result: 'static,
{
    type Result = Answer<M::Result>;

    fn handle(&mut self, message: M, _: &mut Context<Self>) -> Self::Result {
        let answer = (self.answer)(&message);
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        Answer(answer)
    }
}

/// An actor that answers by this function, and what it has heard.
pub fn probe<M>(answer: impl FnMut(&M) -> M::Result + 'static) -> (Recipient<M>, Probe<M>)
where
    M: Message + Clone + Send + 'static,
    M::Result: Send,
{
    let heard: Arc<Mutex<Vec<M>>> = Arc::default();
    let actor = Answering { heard: heard.clone(), answer: Box::new(answer) };
    (actor.start().recipient(), Probe { heard })
}
