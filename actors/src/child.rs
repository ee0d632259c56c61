//! Actors that come and go: started by the supervisor, dropped between two handlers.
//!
//! A stop is a crash at a polite moment, so recovery is written once: the next producer reads
//! the store and carries on from there.

use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Recipient};
use baton_messages::supervisor::StopProducing;
use tokio::sync::oneshot;

/// A running actor that can be stopped and awaited.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    done: oneshot::Receiver<()>,
    finish: Option<Recipient<StopProducing>>,
}

impl Child {
    /// A task that ends after `stop` was sent, and says so by `done`. For an actor use [`spawn`].
    #[must_use]
    pub const fn new(name: &'static str, stop: oneshot::Sender<()>, done: oneshot::Receiver<()>) -> Self {
        Self { name, stop: Some(stop), done, finish: None }
    }

    /// One that finishes what it is doing when it is asked to; others are just stopped.
    #[must_use]
    pub fn finishing_by(mut self, finish: Recipient<StopProducing>) -> Self {
        self.finish = Some(finish);
        self
    }

    /// Whom to ask to finish before it is stopped.
    #[must_use]
    pub const fn finish(&self) -> Option<&Recipient<StopProducing>> {
        self.finish.as_ref()
    }

    /// The name it was given.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.stop.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Drops the actor with everything it waits for, and returns when it is gone.
    pub async fn stop(mut self) {
        self.ask();
        let _ = self.done.await;
    }

    /// As [`Child::stop`], but for so long only.
    ///
    /// # Errors
    ///
    /// The child, when it is not gone by then: it was asked, and can be waited for again.
    pub async fn stop_within(mut self, limit: Duration) -> Result<(), Self> {
        self.ask();
        match tokio::time::timeout(limit, &mut self.done).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self),
        }
    }

    fn ask(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// Starts an actor on this thread. Its futures, also one it waits for with `ctx.wait`, die
/// with it.
pub fn spawn<A, F>(name: &'static str, build: F) -> (Addr<A>, Child)
where
    A: Actor<Context = Context<A>>,
    F: FnOnce(&mut Context<A>) -> A,
{
    let mut ctx = Context::new();
    let address = ctx.address();
    let actor = build(&mut ctx);
    let running = ctx.into_future(actor);
    let (stop, stopped) = oneshot::channel();
    let (gone, done) = oneshot::channel();
    let kept = address.clone();
    tokio::task::spawn_local(async move {
        // An actor that nobody can reach and that waits for nothing would end by itself.
        let _kept = kept;
        tokio::select! {
            biased;
            _ = stopped => {}
            () = running => {}
        }
        let _ = gone.send(());
    });
    (address, Child::new(name, stop, done))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use actix::{ActorFutureExt, WrapFuture};

    use super::*;

    struct Waiting(Rc<Cell<bool>>);

    impl Actor for Waiting {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Context<Self>) {
            let forever = std::future::pending::<()>().into_actor(self).map(|(), _, _| ());
            ctx.wait(forever);
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_does_not_go_in_time_can_be_waited_for_again() {
        let (stop, stopped) = oneshot::channel();
        let (gone, done) = oneshot::channel();
        let child = Child::new("slow", stop, done);
        tokio::spawn(async move {
            let _ = stopped.await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let _ = gone.send(());
        });
        assert!(!child.has_ended());
        let child = child.stop_within(Duration::from_secs(2)).await.expect_err("it takes three");
        assert!(child.has_ended(), "it was asked");
        assert!(child.stop_within(Duration::from_secs(2)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_waits_for_ever_is_gone_when_stop_returns() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let dropped = Rc::new(Cell::new(false));
                let seen = dropped.clone();
                let (address, child) = spawn("waiting", move |_| Waiting(seen));
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(!dropped.get());
                assert!(!child.has_ended());
                child.stop().await;
                assert!(dropped.get());
                assert!(!address.connected());
            })
            .await;
    }
}
