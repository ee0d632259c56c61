//! The supervisor and its producers.

use super::*;

type Log = Rc<RefCell<Vec<String>>>;

/// Says when it starts and when it is gone.
struct Logging(&'static str, Log);

impl Actor for Logging {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.1.borrow_mut().push(format!("start {}", self.0));
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.1.borrow_mut().push(format!("gone {}", self.0));
    }
}

/// Ends by itself after a second.
struct Mortal(Log);

impl Actor for Mortal {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        use actix::{ActorContext, AsyncContext};
        self.0.borrow_mut().push("start mortal".to_owned());
        ctx.run_later(Duration::from_secs(1), |_, ctx| ctx.stop());
    }
}

fn logging(name: &'static str, log: &Log) -> Producer {
    let log = log.clone();
    Producer::new(name, move |_| child::spawn(name, |_| Logging(name, log.clone())).1)
}

fn supervisor(producers: Vec<Producer>) -> (Addr<Supervisor>, Probe<IntegrityStop>) {
    let (integrity_stop, alarms) = probe(|_: &IntegrityStop| ());
    let links = supervisor::Links { integrity_stop };
    let metrics = supervisor::Metrics::default();
    (Supervisor::new(supervisor::Config::default(), links, metrics, producers).start(), alarms)
}

fn leads(term: u64) -> LeadershipChanged {
    LeadershipChanged { term: Term(term), role: Role::Leader, leader: None }
}

fn elect(supervisor: &Addr<Supervisor>, term: u64) {
    supervisor.do_send(leads(term));
    supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
    supervisor.do_send(TermApplied { term: Term(term), tip: Tip::default() });
}

#[test]
fn producers_start_in_order_once_the_first_entry_of_the_term_is_applied() {
    sim_run(1, || async {
        let log = Log::default();
        let (supervisor, _) = supervisor(vec![logging("last stage", &log), logging("first stage", &log)]);
        supervisor.do_send(leads(3));
        supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
        pass(10).await;
        let view = supervisor.send(GetSupervisorView).await.expect("alive");
        assert_eq!((log.borrow().len(), view.grant), (0, None), "P5: its own entry is not applied");
        supervisor.do_send(TermApplied { term: Term(3), tip: Tip::default() });
        pass(10).await;
        assert_eq!(*log.borrow(), ["start last stage", "start first stage"]);
        let view = supervisor.send(GetSupervisorView).await.expect("alive");
        assert_eq!(view.grant.map(|grant| grant.term), Some(Term(3)));
    });
}

#[test]
fn all_producers_of_a_term_are_gone_before_those_of_the_next_start() {
    sim_run(1, || async {
        let log = Log::default();
        let (supervisor, _) = supervisor(vec![logging("a", &log), logging("b", &log)]);
        elect(&supervisor, 1);
        pass(10).await;
        elect(&supervisor, 2);
        pass(10).await;
        let log = log.borrow();
        assert_eq!(log[..2], ["start a", "start b"]);
        assert!(log[2..4].iter().all(|line| line.starts_with("gone")), "{log:?}");
        assert_eq!(log[4..], ["start a", "start b"]);
    });
}

#[test]
fn a_producer_that_dies_takes_the_others_with_it_and_all_start_again() {
    sim_run(1, || async {
        let log = Log::default();
        let mortal = log.clone();
        let dies = Producer::new("mortal", move |_| child::spawn("mortal", |_| Mortal(mortal.clone())).1);
        let (supervisor, _) = supervisor(vec![dies, logging("other", &log)]);
        elect(&supervisor, 1);
        pass(2_000).await;
        let expected = ["start mortal", "start other", "gone other", "start mortal", "start other"];
        assert_eq!(*log.borrow(), expected);
    });
}

#[test]
fn shutdown_while_starting_leaves_nobody_behind_and_nobody_starts_after_it() {
    sim_run(1, || async {
        let log = Log::default();
        let (supervisor, alarms) = supervisor(vec![logging("a", &log), logging("b", &log)]);
        elect(&supervisor, 1);
        // Behind what starts them, before they ran for the first time.
        supervisor.send(Shutdown).await.expect("answered when they are gone");
        let started = log.borrow().iter().filter(|line| line.starts_with("start")).count();
        let gone = log.borrow().iter().filter(|line| line.starts_with("gone")).count();
        assert_eq!(gone, 2, "{started} started: {:?}", log.borrow());
        elect(&supervisor, 2);
        pass(2_000).await;
        assert_eq!(log.borrow().iter().filter(|line| line.starts_with("gone")).count(), 2);
        let view = supervisor.send(GetSupervisorView).await.expect("alive");
        assert_eq!(view.pause.as_deref(), Some("shutting down"));
        assert_eq!(alarms.count(), 0);
    });
}

#[test]
fn an_integrity_error_of_execution_is_passed_on_and_stops_production() {
    sim_run(1, || async {
        let log = Log::default();
        let (supervisor, alarms) = supervisor(vec![logging("a", &log)]);
        elect(&supervisor, 1);
        let trouble = Some("roots differ".to_owned());
        supervisor.do_send(ExecutionTrouble { height: Height(1), trouble, integrity: true });
        pass(10).await;
        assert_eq!(*log.borrow(), ["start a", "gone a"]);
        assert_eq!(alarms.take()[0].reason, "roots differ");
    });
}
