use std::cell::{Cell, RefCell};

use baton_messages::types::Timestamp;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::*;

/// A DA layer that answers when it is told to.
#[derive(Default)]
struct Slow {
    gate: Notify,
    submitted: RefCell<Vec<Vec<Blob>>>,
    waiting: Cell<usize>,
}

#[async_trait(?Send)]
impl DaLayer for Slow {
    async fn submit(&self, blobs: &[Blob]) -> Result<DaHeight, DaError> {
        self.waiting.set(self.waiting.get() + 1);
        self.gate.notified().await;
        self.submitted.borrow_mut().push(blobs.to_vec());
        Ok(DaHeight(self.submitted.borrow().len() as u64))
    }

    async fn get_all(&self, height: DaHeight, _: &[Namespace]) -> Result<Vec<Blob>, DaError> {
        Err(DaError::FromTheFuture(height.to_string()))
    }

    async fn get(&self, _: DaHeight, _: Namespace, _: Hash) -> Result<Option<Blob>, DaError> {
        Ok(None)
    }

    async fn proof(&self, _: DaHeight, _: Namespace, _: Hash) -> Result<Option<Proof>, DaError> {
        Ok(None)
    }

    async fn included(&self, _: DaHeight, _: Namespace, _: &Proof, _: Hash) -> Result<bool, DaError> {
        Ok(false)
    }

    async fn head(&self) -> Result<DaHead, DaError> {
        Ok(DaHead { height: DaHeight(3), time: Timestamp(4) })
    }

    async fn header(&self, height: DaHeight) -> Result<DaHead, DaError> {
        Ok(DaHead { height, time: Timestamp(4) })
    }
}

fn submit(term: u64) -> SubmitBlobs {
    let blob = Blob { namespace: Namespace([0; 29]), data: Bytes::from_static(b"blob") };
    SubmitBlobs { grant: Grant { term: Term(term) }, blobs: vec![blob] }
}

fn config() -> Config {
    Config { request_timeout: Duration::from_secs(60), submits_in_flight: 2, reads_in_flight: 1 }
}

#[tokio::test(start_paused = true)]
async fn an_older_grant_is_refused_once_a_newer_one_was_seen() {
    LocalSet::new()
        .run_until(async {
            let layer = Rc::new(Slow::default());
            let metrics = Metrics::default();
            let da = Da::new(layer.clone(), config(), metrics.clone()).start();
            for _ in 0..2 {
                layer.gate.notify_one();
                assert!(da.send(submit(5)).await.unwrap().is_ok());
            }
            assert_eq!(da.send(submit(4)).await.unwrap(), Err(DaError::StaleGrant(4)));
            layer.gate.notify_one();
            assert_eq!(da.send(submit(6)).await.unwrap(), Ok(DaHeight(3)));
            assert_eq!(da.send(submit(5)).await.unwrap(), Err(DaError::StaleGrant(5)));
            assert_eq!(layer.submitted.borrow().len(), 3);
            let labels = FailureLabels { request: "submit", reason: "stale_grant" };
            assert_eq!(metrics.failures.get_or_create(&labels).get(), 2);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gets_no_answer_ends_after_the_timeout_and_makes_room() {
    LocalSet::new()
        .run_until(async {
            let layer = Rc::new(Slow::default());
            let metrics = Metrics::default();
            let da = Da::new(layer.clone(), config(), metrics.clone()).start();
            let started = Instant::now();
            let (first, second) = tokio::join!(da.send(submit(1)), da.send(submit(1)));
            assert!(matches!(first.unwrap(), Err(DaError::Unavailable(_))));
            assert!(matches!(second.unwrap(), Err(DaError::Unavailable(_))));
            assert_eq!(started.elapsed().as_secs(), 60);
            let labels = RequestLabels { request: "submit" };
            assert_eq!(metrics.in_flight.get_or_create(&labels).get(), 0);
            layer.gate.notify_one();
            assert!(da.send(submit(1)).await.unwrap().is_ok());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn more_submissions_than_the_limit_are_refused_at_once_and_reads_are_not() {
    LocalSet::new()
        .run_until(async {
            let layer = Rc::new(Slow::default());
            let metrics = Metrics::default();
            let da = Da::new(layer.clone(), config(), metrics.clone()).start();
            let given_up = da.send(submit(1)).timeout(Duration::from_secs(1)).await;
            assert!(given_up.is_err(), "the caller stops waiting, the request goes on");
            let second = tokio::task::spawn_local(da.send(submit(1)));
            let third = da.send(submit(1)).await.unwrap();
            assert!(matches!(third, Err(DaError::Unavailable(_))), "{third:?}");
            let labels = RequestLabels { request: "submit" };
            assert_eq!(metrics.in_flight.get_or_create(&labels).get(), 2);
            assert_eq!(da.send(GetDaHead).await.unwrap().unwrap().height, DaHeight(3));
            let future = GetBlobs { height: DaHeight(9), namespaces: vec![] };
            assert_eq!(da.send(future).await.unwrap(), Err(DaError::FromTheFuture("9".into())));
            assert_eq!(layer.waiting.get(), 2);
            layer.gate.notify_waiters();
            assert!(second.await.unwrap().unwrap().is_ok());
        })
        .await;
}
