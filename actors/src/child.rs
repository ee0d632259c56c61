//! Actors that come and go: started by the supervisor, dropped between two handlers.
//!
//! A stop is a crash at a polite moment, so recovery is written once: the next producer reads
//! the store and carries on from there.

use actix::{Actor, Addr, AsyncContext, Context};
use tokio::sync::oneshot;

/// A running actor that can be stopped and awaited.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    stop: oneshot::Sender<()>,
    done: oneshot::Receiver<()>,
}

impl Child {
    /// The name it was given.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.stop.is_closed()
    }

    /// Drops the actor with everything it waits for, and returns when it is gone.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.done.await;
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
    (address, Child { name, stop, done })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

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
