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

/// Says when it is asked for its last block, and makes it after a while.
struct Finishing(Log, u64);

impl Actor for Finishing {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.0.borrow_mut().push("start finishing".to_owned());
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        self.0.borrow_mut().push("gone finishing".to_owned());
    }
}

impl actix::Handler<StopProducing> for Finishing {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: StopProducing, _: &mut Context<Self>) -> Self::Result {
        let (log, takes) = (self.0.clone(), self.1);
        Box::pin(async move {
            pass(takes).await;
            log.borrow_mut().push("last block".to_owned());
        })
    }
}

fn finishing(log: &Log, takes: u64) -> Producer {
    let log = log.clone();
    Producer::new("finishing", move |_| {
        let (actor, child) = child::spawn("finishing", |_| Finishing(log.clone(), takes));
        child.finishing_by(actor.recipient())
    })
}

/// A supervisor among probes.
struct Rig {
    supervisor: Addr<Supervisor>,
    alarms: Probe<IntegrityStop>,
    told: Probe<TellCondition>,
    campaign: Probe<Campaign>,
    stand: Probe<Stand>,
    heartbeats: Probe<Heartbeats>,
    transfers: Probe<TransferLeadership>,
    da_questions: Probe<AskDa>,
    audited: Probe<LeadershipAudited>,
    /// The chain of this member.
    stage: Stage,
    /// For how long the storage thread has been busy.
    busy: Rc<Cell<Option<Duration>>>,
    /// What Raft answers to a transfer.
    answer: Rc<RefCell<Result<(Term, MemberId), TransferError>>>,
    /// How far the DA layers are that answer.
    da: Rc<RefCell<BTreeMap<MemberId, DaHeight>>>,
}

impl Rig {
    fn new(producers: Vec<Producer>) -> Self {
        Self::with(supervisor::Config::default(), producers)
    }

    fn with(config: supervisor::Config, producers: Vec<Producer>) -> Self {
        Self::over(config, producers, Stage::new())
    }

    fn over(config: supervisor::Config, producers: Vec<Producer>, stage: Stage) -> Self {
        let (integrity_stop, alarms) = probe(|_: &IntegrityStop| ());
        let (tell, told) = probe(|_: &TellCondition| ());
        let (campaign, campaigns) = probe(|_: &Campaign| ());
        let (stand, stood) = probe(|_: &Stand| ());
        let (heartbeats, beats) = probe(|_: &Heartbeats| ());
        let (audit, audited) = probe(|_: &LeadershipAudited| ());
        let answer = Rc::new(RefCell::new(Ok((Term(2), MemberId(2)))));
        let answers = answer.clone();
        let (transfer, transfers) = probe(move |_: &TransferLeadership| answers.borrow().clone());
        let da = Rc::new(RefCell::new(BTreeMap::new()));
        let heads = da.clone();
        let (ask_da, da_questions) = probe(move |_: &AskDa| heads.borrow().clone());
        let cluster = supervisor::ClusterLinks { tell, campaign, stand, heartbeats, transfer, ask_da };
        let links = supervisor::Links { integrity_stop, cluster, signer_view: None, audit: vec![audit] };
        let busy = Rc::new(Cell::new(None));
        let busy_for = busy.clone();
        let sources = supervisor::Sources {
            member: MemberId(1),
            boot: 1,
            command_version: 1,
            reader: stage.reader(),
            busy_for: Box::new(move || busy_for.get()),
        };
        let metrics = supervisor::Metrics::default();
        let supervisor = Supervisor::new(config, links, metrics, sources, producers).start();
        Self {
            supervisor,
            alarms,
            told,
            campaign: campaigns,
            stand: stood,
            heartbeats: beats,
            transfers,
            da_questions,
            audited,
            stage,
            busy,
            answer,
            da,
        }
    }

    /// This member is the first of so many voters.
    fn voters(&self, count: u64) {
        let member = |id| (MemberId(id), Member { name: format!("n{id}"), ..Member::default() });
        let voters = (1..=count).map(member).collect();
        self.supervisor.do_send(MembersChanged { own: MemberId(1), voters, ..MembersChanged::default() });
    }

    /// Lets time pass in which these members tell every heartbeat that they are so.
    async fn hear(&self, milliseconds: u64, members: &[Condition]) {
        for _ in 0..milliseconds.div_ceil(30) {
            for condition in members {
                self.supervisor.do_send(MemberTold { condition: condition.clone(), leads: true });
            }
            pass(30).await;
        }
    }

    /// An operator's pause, or its end, is applied here.
    fn pause(&self, reason: Option<&str>) {
        self.stage.apply(Command::Pause(reason.map(str::to_owned)));
        self.supervisor.do_send(Applied { tip: self.stage.tip() });
    }

    async fn view(&self) -> SupervisorView {
        self.supervisor.send(GetSupervisorView).await.expect("it answers in every state")
    }

    /// Asks for a hand-over without waiting for its end.
    fn hand_off(&self, to: Option<&str>) -> Rc<RefCell<Option<Result<HandedOff, HandOffError>>>> {
        let asked = HandOff { to: to.map(str::to_owned), reason: "scripted".to_owned() };
        let (answer, supervisor) = (Rc::new(RefCell::new(None)), self.supervisor.clone());
        let answered = answer.clone();
        tokio::task::spawn_local(async move {
            let end = supervisor.send(asked).await.expect("it answers");
            *answered.borrow_mut() = Some(end);
        });
        answer
    }
}

fn fit(id: u64) -> Condition {
    Condition { member: MemberId(id), ..Condition::default() }
}

fn unfit(id: u64, reason: &str) -> Condition {
    Condition { reasons: vec![reason.to_owned()], ..fit(id) }
}

fn supervisor(producers: Vec<Producer>) -> (Addr<Supervisor>, Probe<IntegrityStop>) {
    let rig = Rig::new(producers);
    (rig.supervisor, rig.alarms)
}

fn leads(term: u64) -> LeadershipChanged {
    LeadershipChanged { term: Term(term), role: Role::Leader, leader: Some(MemberId(1)) }
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

fn follows(term: u64, leader: u64) -> LeadershipChanged {
    LeadershipChanged { term: Term(term), role: Role::Follower, leader: Some(MemberId(leader)) }
}

#[test]
fn every_heartbeat_and_at_once_when_it_changes_the_others_are_told_how_it_is() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        pass(305).await;
        let told = rig.told.take();
        assert!((10..=12).contains(&told.len()), "{} in ten heartbeats", told.len());
        assert!(told.iter().all(|told| !told.0.is_eligible()), "the engine has not said where it is");
        rig.supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
        pass(1).await;
        let told = rig.told.take();
        assert!(told.len() == 1 && told[0].0.is_eligible(), "{told:?}");
        let trouble = Some("x".repeat(1_000));
        rig.supervisor.do_send(EngineHealthChanged { trouble });
        pass(1).await;
        let told = rig.told.take();
        assert_eq!(told[0].0.reasons[0].len(), 200, "bounded");
    });
}

#[test]
fn a_member_that_is_level_says_so_at_once_while_the_leader_rests() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        rig.supervisor.do_send(follows(1, 2));
        rig.supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
        rig.hear(60, &[Condition { producing: true, ..fit(2) }]).await;
        pass(5).await;
        let _ = rig.told.take();
        rig.supervisor.do_send(MemberTold { condition: fit(2), leads: true });
        pass(1).await;
        assert_eq!(rig.told.count(), 1, "L4: the leader waits for it");
    });
}

/// openraft names whom the stored vote names; that one came back without what it had committed.
#[test]
fn a_leader_that_came_back_and_leads_nothing_keeps_no_caretaker_from_standing() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        rig.supervisor.do_send(EngineHealthChanged { trouble: Some("away".to_owned()) });
        rig.supervisor.do_send(follows(1, 2));
        rig.hear(900, &[fit(2)]).await;
        assert_eq!(rig.stand.count(), 0, "it is heard as a leader");
        for _ in 0..60 {
            rig.supervisor.do_send(MemberTold { condition: fit(2), leads: false });
            pass(30).await;
        }
        assert!(rig.stand.count() >= 1, "P6: a cluster without a leader helps nobody");
    });
}

#[test]
fn settings_that_differ_from_a_leaders_are_no_trouble_to_the_next_one() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        rig.supervisor.do_send(follows(1, 2));
        rig.supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
        rig.hear(60, &[Condition { config: Hash::of(b"other"), ..fit(2) }]).await;
        let reasons = rig.view().await.eligibility.reasons;
        assert!(reasons.iter().any(|reason| reason.contains("other settings")), "D11: {reasons:?}");
        elect(&rig.supervisor, 2);
        pass(1).await;
        let view = rig.view().await;
        assert_eq!(view.eligibility.reasons, Vec::<String>::new(), "it is the leader whose settings count");
        assert_eq!(view.grant.map(|grant| grant.term), Some(Term(2)));
    });
}

#[test]
fn a_hand_off_ends_with_the_last_block_everywhere_and_the_other_in_the_lead() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![logging("submitter", &log), finishing(&log, 5)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[fit(2), fit(3)]).await;
        let end = rig.hand_off(Some("n3"));
        rig.hear(60, &[fit(2), fit(3)]).await;
        let gone: Vec<String> = log.borrow()[2..].to_vec();
        assert_eq!(gone[0], "last block", "{gone:?}");
        assert_eq!(gone.len(), 3, "{gone:?}");
        let transfers = rig.transfers.take();
        assert_eq!(transfers, [TransferLeadership { term: Term(1), to: MemberId(3) }]);
        assert!(
            matches!(&*end.borrow(), Some(Ok(done)) if done.to == "n2" && done.term == Term(2)),
            "{end:?}"
        );
        // Raft has not said yet that another leads: nothing starts in the term that is given away.
        rig.hear(300, &[fit(2), fit(3)]).await;
        assert_eq!(rig.view().await.grant, None);
        assert_eq!(log.borrow().len(), 5);
    });
}

#[test]
fn a_hand_off_that_fails_before_the_transfer_goes_on_in_the_same_term_at_once() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![finishing(&log, 5)]);
        *rig.answer.borrow_mut() = Err(TransferError::Target("it does not answer".to_owned()));
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[fit(2)]).await;
        let end = rig.hand_off(None);
        rig.hear(60, &[fit(2)]).await;
        assert!(matches!(&*end.borrow(), Some(Err(HandOffError::Aborted(_)))), "{end:?}");
        let expected = ["start finishing", "last block", "gone finishing", "start finishing"];
        assert_eq!(*log.borrow(), expected, "F4");
        assert_eq!(rig.view().await.grant.map(|grant| grant.term), Some(Term(1)));
    });
}

#[test]
fn a_target_that_dies_while_the_last_block_is_made_aborts_the_hand_off() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![finishing(&log, 400)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[fit(2)]).await;
        let end = rig.hand_off(None);
        // It is not heard from here on.
        pass(1_000).await;
        assert!(matches!(&*end.borrow(), Some(Err(HandOffError::Aborted(_)))), "{end:?}");
        assert_eq!(rig.transfers.count(), 0);
        assert_eq!(log.borrow()[..3], ["start finishing", "gone finishing", "start finishing"], "F4");
        assert!(rig.view().await.grant.is_some());
    });
}

#[test]
fn a_last_block_that_is_not_decided_in_time_aborts_the_hand_off() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![finishing(&log, 60_000)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[fit(2)]).await;
        let end = rig.hand_off(None);
        rig.hear(3_000, &[fit(2)]).await;
        assert!(matches!(&*end.borrow(), Some(Err(HandOffError::Aborted(_)))), "{end:?}");
        assert_eq!(*log.borrow(), ["start finishing", "gone finishing", "start finishing"]);
        assert_eq!(rig.transfers.count(), 0, "F3");
    });
}

#[test]
fn there_is_one_hand_off_at_a_time_and_one_transfer() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![finishing(&log, 50)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[fit(2), fit(3)]).await;
        let first = rig.hand_off(Some("n2"));
        pass(1).await;
        let second = rig.hand_off(Some("n2"));
        let third = rig.hand_off(Some("n3"));
        rig.hear(300, &[fit(2), fit(3)]).await;
        assert_eq!(*second.borrow(), Some(Err(HandOffError::InProgress)), "F1");
        assert_eq!(*third.borrow(), Some(Err(HandOffError::InProgress)));
        assert!(matches!(&*first.borrow(), Some(Ok(_))), "{first:?}");
        assert_eq!(rig.transfers.count(), 1, "F1");
    });
}

#[test]
fn a_hand_off_without_a_target_or_without_leadership_says_why() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        rig.hear(60, &[Condition { rpc: "10.0.0.2:7331".to_owned(), ..fit(2) }]).await;
        rig.supervisor.do_send(follows(1, 2));
        let end = rig.hand_off(None);
        pass(1).await;
        let hint = match &*end.borrow() {
            Some(Err(HandOffError::NotLeader(Some(hint)))) => hint.clone(),
            end => panic!("{end:?}"),
        };
        assert_eq!((hint.name.as_str(), hint.rpc.as_str()), ("n2", "10.0.0.2:7331"));
        elect(&rig.supervisor, 2);
        rig.hear(60, &[unfit(2, "engine: away")]).await;
        for (to, why) in [(None, "n2: engine: away; n3: it is not heard"), (Some("n9"), "n9: it is no voter")]
        {
            let end = rig.hand_off(to);
            pass(1).await;
            assert_eq!(*end.borrow(), Some(Err(HandOffError::NoTarget(why.to_owned()))));
        }
    });
}

#[test]
fn a_leader_that_shuts_down_gives_leadership_away_first_and_never_stands_again() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![finishing(&log, 5)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[fit(2)]).await;
        let (ended, supervisor) = (Rc::new(Cell::new(false)), rig.supervisor.clone());
        let seen = ended.clone();
        tokio::task::spawn_local(async move {
            supervisor.send(Shutdown).await.expect("answered at the end");
            seen.set(true);
        });
        rig.hear(90, &[fit(2)]).await;
        assert!(ended.get());
        assert_eq!(rig.transfers.count(), 1);
        assert_eq!(*log.borrow(), ["start finishing", "last block", "gone finishing"]);
        assert!(rig.told.take().last().is_some_and(|told| told.0.closing));
        assert_eq!(rig.campaign.take().last(), Some(&Campaign { allowed: false }), "F7");
    });
}

#[test]
fn a_leader_that_shuts_down_with_nobody_to_take_over_just_stops() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![logging("a", &log)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[unfit(2, "engine: away")]).await;
        rig.supervisor.send(Shutdown).await.expect("answered at the end");
        assert_eq!(*log.borrow(), ["start a", "gone a"]);
        assert_eq!(rig.transfers.count(), 0);
    });
}

#[test]
fn a_leader_whose_engine_is_silent_gives_leadership_to_one_who_is_fit() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![logging("a", &log)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[unfit(2, "disk: full"), fit(3)]).await;
        rig.supervisor.do_send(EngineHealthChanged { trouble: Some("silent".to_owned()) });
        rig.hear(60, &[unfit(2, "disk: full"), fit(3)]).await;
        assert_eq!(*log.borrow(), ["start a", "gone a"]);
        let to_three = TransferLeadership { term: Term(1), to: MemberId(3) };
        assert_eq!(rig.transfers.take(), [to_three], "E18");
    });
}

#[test]
fn when_nobody_is_fit_the_leader_stays_as_caretaker_says_so_and_goes_on_when_it_can() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![logging("a", &log)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        let ill = [unfit(2, "engine: away"), unfit(3, "engine: away")];
        rig.hear(60, &ill).await;
        rig.supervisor.do_send(EngineHealthChanged { trouble: Some("away".to_owned()) });
        rig.hear(3_000, &ill).await;
        let view = rig.view().await;
        assert!(view.caretaker);
        let pause = view.pause.expect("it says what it waits for");
        assert_eq!(pause, "engine: away; nobody can take over: n2: engine: away; n3: engine: away");
        assert_eq!((rig.transfers.count(), rig.heartbeats.count()), (0, 0), "S5: the leader stays");
        rig.supervisor.do_send(EngineHealthChanged { trouble: None });
        pass(1).await;
        assert!(rig.view().await.grant.is_some());
        assert_eq!(*log.borrow(), ["start a", "gone a", "start a"]);
    });
}

#[test]
fn a_caretaker_waits_until_the_best_voter_is_level() {
    sim_run(1, || async {
        let config = supervisor::Config { witness: true, ..supervisor::Config::default() };
        let rig = Rig::with(config, vec![]);
        rig.voters(3);
        rig.supervisor.do_send(leads(1));
        let behind = Condition { tip: Height(7), executed: Height(5), ..fit(2) };
        rig.hear(600, std::slice::from_ref(&behind)).await;
        assert_eq!(rig.transfers.count(), 0, "F2");
        assert!(rig.view().await.hand_over.is_some_and(|waits| waits.contains("n2")));
        rig.hear(60, &[Condition { executed: Height(7), ..behind }]).await;
        assert_eq!(rig.transfers.take(), [TransferLeadership { term: Term(1), to: MemberId(2) }]);
    });
}

#[test]
fn a_leader_whose_disk_hangs_stops_its_heartbeats_when_a_transfer_is_vain_until_it_is_well() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![logging("a", &log)]);
        *rig.answer.borrow_mut() = Err(TransferError::NoSuccessor(300));
        rig.voters(3);
        elect(&rig.supervisor, 1);
        let others = [fit(2), fit(3)];
        rig.hear(60, &others).await;
        rig.busy.set(Some(Duration::from_secs(1)));
        rig.hear(90, &others).await;
        let to_two = TransferLeadership { term: Term(1), to: MemberId(2) };
        assert_eq!(rig.transfers.take(), [to_two], "F1: one in a term");
        let stopped = [Heartbeats { enabled: false }];
        assert_eq!(rig.heartbeats.take(), stopped, "E3");
        assert!(rig.told.take().last().is_some_and(|told| told.0.silent));
        assert!(rig.view().await.silent.is_some_and(|why| why.contains("disk")));
        rig.busy.set(None);
        rig.hear(1_000, &others).await;
        assert_eq!(rig.heartbeats.count(), 0, "S6: well for a moment is not well");
        rig.hear(1_200, &others).await;
        assert_eq!(rig.heartbeats.take(), [Heartbeats { enabled: true }]);
    });
}

#[test]
fn nothing_is_produced_before_the_last_block_of_a_chain_that_was_taken_over_is_here() {
    sim_run(1, || async {
        let (whole, stage, log) = (Stage::new(), Stage::new(), Log::default());
        whole.grow(3);
        stage.grow(2);
        let last = whole.tip();
        let after = |hash| supervisor::Config {
            begins_after: Some((last.height, hash)),
            ..supervisor::Config::default()
        };
        let rig = Rig::over(after(last.hash), vec![logging("a", &log)], stage);
        rig.voters(1);
        elect(&rig.supervisor, 1);
        pass(2_000).await;
        assert_eq!(*log.borrow(), Vec::<String>::new(), "M3");
        let view = rig.view().await;
        assert_eq!(view.grant, None);
        let reasons = view.eligibility.reasons.join("; ");
        assert!(reasons.contains("takeover: the chain goes on after height 3"), "{reasons}");
        rig.stage.grow(1);
        pass(2_000).await;
        assert_eq!(*log.borrow(), ["start a"], "it is here now");

        // Another chain of the same length is not it.
        let (other, log) = (Stage::new(), Log::default());
        other.grow(4);
        let rig = Rig::over(after(other.tip().hash), vec![logging("a", &log)], other);
        rig.voters(1);
        elect(&rig.supervisor, 1);
        pass(2_000).await;
        assert!(rig.view().await.eligibility.reasons.iter().any(|reason| reason.contains("here is")));
        assert_eq!(*log.borrow(), Vec::<String>::new());
    });
}

#[test]
fn a_sole_voter_whose_disk_hangs_only_pauses() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![logging("a", &log)]);
        rig.voters(1);
        elect(&rig.supervisor, 1);
        pass(60).await;
        rig.busy.set(Some(Duration::from_secs(1)));
        pass(1_000).await;
        assert_eq!(*log.borrow(), ["start a", "gone a"]);
        assert_eq!((rig.transfers.count(), rig.heartbeats.count()), (0, 0));
        rig.busy.set(None);
        pass(3_000).await;
        assert_eq!(*log.borrow(), ["start a", "gone a", "start a"]);
    });
}

#[test]
fn a_leader_whose_blocks_do_not_come_gives_leadership_away_and_not_too_often() {
    sim_run(1, || async {
        let log = Log::default();
        let config =
            supervisor::Config { stalled_after: Duration::from_secs(1), ..supervisor::Config::default() };
        let rig = Rig::with(config, vec![finishing(&log, 60_000)]);
        *rig.answer.borrow_mut() = Err(TransferError::Target("scripted".to_owned()));
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(900, &[fit(2)]).await;
        assert_eq!(rig.transfers.count(), 0);
        rig.hear(2_600, &[fit(2)]).await;
        assert_eq!(rig.transfers.take().len(), 1, "L3: its producers do not answer, and are dropped");
        assert!(rig.view().await.grant.is_some(), "a leader without anybody better tries on");
        let before = rig.transfers.count();
        rig.hear(600, &[fit(2)]).await;
        assert_eq!(rig.transfers.count(), before, "S6");
    });
}

#[test]
fn who_waits_for_transactions_is_not_taken_for_stalled() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        pass(10).await;
        rig.supervisor.do_send(ProductionChanged { term: Term(1), pause: None, due: false });
        rig.hear(20_000, &[fit(2)]).await;
        assert_eq!((rig.transfers.count(), rig.heartbeats.count()), (0, 0));
        assert!(rig.view().await.eligibility.reasons.is_empty());
    });
}

fn da_heads(heads: &[(u64, u64)]) -> BTreeMap<MemberId, DaHeight> {
    heads.iter().map(|(id, height)| (MemberId(*id), DaHeight(*height))).collect()
}

/// A leader of whom no blocks are asked for: what it does is for DA's sake.
fn asked_for_no_blocks() -> supervisor::Config {
    supervisor::Config { stalled_after: Duration::from_secs(3_600), ..supervisor::Config::default() }
}

/// A leader whose DA layer has said for a minute that it is away.
async fn without_da(rig: &Rig, others: &[Condition]) {
    rig.voters(3);
    elect(&rig.supervisor, 1);
    rig.hear(60, others).await;
    let trouble = Some("the DA layer is not available: connection refused".to_owned());
    rig.supervisor.do_send(DaStateChanged { trouble, included: Height(0) });
    rig.hear(59_000, others).await;
    assert_eq!((rig.da_questions.count(), rig.transfers.count()), (0, 0), "S6: DA comes back mostly");
    rig.hear(2_000, others).await;
    assert_eq!(rig.da_questions.take().len(), 1);
}

#[test]
fn a_leader_that_does_not_reach_da_gives_leadership_to_one_who_does() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::with(asked_for_no_blocks(), vec![finishing(&log, 5)]);
        *rig.da.borrow_mut() = da_heads(&[(3, 7)]);
        without_da(&rig, &[fit(2), fit(3)]).await;
        assert_eq!(rig.transfers.take(), [TransferLeadership { term: Term(1), to: MemberId(3) }], "P7");
        assert_eq!(
            *log.borrow(),
            ["start finishing", "last block", "gone finishing"],
            "it made blocks until then"
        );
        let view = rig.view().await;
        assert_eq!(
            (view.eligibility.reasons.len(), view.caretaker),
            (0, false),
            "DA is no part of being fit"
        );
    });
}

#[test]
fn a_leader_whose_da_layer_has_lost_the_network_gives_leadership_to_one_whose_has_not() {
    sim_run(1, || async {
        let rig = Rig::with(asked_for_no_blocks(), vec![]);
        *rig.da.borrow_mut() = da_heads(&[(1, 100), (2, 110), (3, 111)]);
        without_da(&rig, &[fit(2), fit(3)]).await;
        assert_eq!(rig.transfers.take(), [TransferLeadership { term: Term(1), to: MemberId(3) }]);
    });
}

#[test]
fn when_nobody_reaches_da_the_leader_stays_and_goes_on_asking() {
    sim_run(1, || async {
        let rig = Rig::with(asked_for_no_blocks(), vec![]);
        let others = [fit(2), fit(3)];
        without_da(&rig, &others).await;
        rig.hear(60_000, &others).await;
        let asked = rig.da_questions.take().len();
        assert!((9..=10).contains(&asked), "asked {asked} times in a minute");
        // Those who reach it and cannot lead help nobody.
        *rig.da.borrow_mut() = da_heads(&[(2, 7), (4, 7)]);
        rig.hear(20_000, &[unfit(2, "engine: away"), fit(3)]).await;
        assert_eq!((rig.transfers.count(), rig.heartbeats.count()), (0, 0), "S5");
        assert!(rig.view().await.grant.is_some());
        rig.hear(12_000, &others).await;
        assert_eq!(rig.transfers.take(), [TransferLeadership { term: Term(1), to: MemberId(2) }]);
    });
}

#[test]
fn a_leader_that_waits_for_what_da_holds_asks_the_others_too_and_for_an_operator_does_not() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        *rig.da.borrow_mut() = da_heads(&[(1, 7), (2, 7), (3, 7)]);
        let others = [fit(2), fit(3)];
        rig.voters(3);
        elect(&rig.supervisor, 1);
        pass(10).await;
        let waits =
            |pause: &str| ProductionChanged { term: Term(1), pause: Some(pause.to_owned()), due: false };
        rig.pause(Some("a look"));
        rig.supervisor.do_send(waits("operator: paused: a look"));
        rig.hear(70_000, &others).await;
        assert_eq!(rig.da_questions.count(), 0);
        rig.pause(None);
        rig.supervisor.do_send(waits("DA heights 1 to 50 may hold forced transactions and are not read"));
        rig.hear(61_000, &others).await;
        assert_eq!(rig.da_questions.take().len(), 1);
        assert_eq!(rig.transfers.count(), 0, "its own DA layer answers, and is as far as theirs");
    });
}

#[test]
fn a_da_layer_that_comes_and_goes_moves_no_leadership() {
    sim_run(1, || async {
        let rig = Rig::with(asked_for_no_blocks(), vec![]);
        *rig.da.borrow_mut() = da_heads(&[(2, 7), (3, 7)]);
        let others = [fit(2), fit(3)];
        rig.voters(3);
        elect(&rig.supervisor, 1);
        for _ in 0..5 {
            for (trouble, lasts) in [(Some("away".to_owned()), 58_000), (None, 1_000)] {
                rig.supervisor.do_send(DaStateChanged { trouble, included: Height(0) });
                rig.hear(lasts, &others).await;
            }
        }
        assert_eq!((rig.da_questions.count(), rig.transfers.count()), (0, 0), "S6");
    });
}

#[test]
fn a_leader_paused_by_an_operator_stays_the_leader_until_it_is_resumed() {
    sim_run(1, || async {
        let log = Log::default();
        let rig = Rig::new(vec![logging("a", &log)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[fit(2)]).await;
        rig.pause(Some("upgrade of DA"));
        rig.hear(3_000, &[fit(2)]).await;
        assert_eq!(rig.transfers.count(), 0);
        let view = rig.view().await;
        assert_eq!(view.pause.as_deref(), Some("operator: paused: upgrade of DA"));
        assert_eq!(view.paused.as_deref(), Some("upgrade of DA"));
        assert!(view.eligibility.reasons.is_empty(), "it is no fault of the node");
        assert_eq!(view.grant.map(|grant| grant.term), Some(Term(1)), "P7: the tail goes to DA under it");
        rig.pause(None);
        pass(1).await;
        let view = rig.view().await;
        assert_eq!((view.pause, view.paused), (None, None));
        assert_eq!(*log.borrow(), ["start a"], "its producers are never stopped for it");
    });
}

#[test]
fn a_pause_in_the_log_is_honoured_from_the_start_and_by_every_later_term() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        // What a snapshot brings is told by nobody.
        rig.stage.apply(Command::Pause(Some("a look".to_owned())));
        rig.hear(60, &[fit(2)]).await;
        for term in 1..4 {
            elect(&rig.supervisor, term);
            rig.hear(60, &[fit(2)]).await;
            let view = rig.view().await;
            assert_eq!(view.grant.map(|grant| grant.term), Some(Term(term)), "P7: the tail goes to DA");
            assert_eq!(view.pause.as_deref(), Some("operator: paused: a look"));
            assert_eq!(view.paused.as_deref(), Some("a look"));
        }
        // It gives leadership away when it is told to stop: the next leader finds the pause too.
        rig.supervisor.do_send(Shutdown);
        rig.hear(60, &[fit(2)]).await;
        assert_eq!(rig.transfers.count(), 1);
    });
}

#[test]
fn a_node_that_is_needed_says_so_before_it_stops() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        rig.hear(60, &[fit(2)]).await;
        let ask = |force| rig.supervisor.send(PrepareStop { force });
        let needed = StopRefused::NoQuorum { left: 1, voters: 3, quorum: 2 };
        assert_eq!(ask(false).await, Ok(Err(needed)), "F8");
        assert_eq!(ask(true).await, Ok(Ok(())));
        rig.hear(60, &[fit(2), fit(3)]).await;
        assert_eq!(ask(false).await, Ok(Ok(())));
        rig.hear(60, &[unfit(2, "engine: away"), unfit(3, "disk: full")]).await;
        assert!(matches!(ask(false).await, Ok(Err(StopRefused::NobodyProduces(_)))));
    });
}

/// Settings in which members must agree are changed member by member (D11).
#[test]
fn who_stops_hands_over_to_other_settings_before_nobody_and_who_leads_has_the_leaders() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        let old = Condition { config: Hash::of(b"old"), producing: true, ..fit(2) };
        rig.supervisor.do_send(follows(1, 2));
        rig.supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
        rig.hear(60, &[old]).await;
        let view = rig.view().await;
        let differs = "settings: other settings than the leader's".to_owned();
        assert!(view.eligibility.reasons.contains(&differs), "{view:?}");
        elect(&rig.supervisor, 2);
        let other =
            Condition { config: Hash::of(b"old"), ..unfit(2, "settings: other settings than the leader's") };
        rig.hear(90, std::slice::from_ref(&other)).await;
        assert!(rig.view().await.eligibility.reasons.is_empty(), "its own settings are the leader's now");
        assert_eq!(*rig.hand_off(None).borrow(), None);
        rig.hear(60, std::slice::from_ref(&other)).await;
        assert_eq!(rig.transfers.count(), 0, "an order to a member with other settings is refused");
        rig.supervisor.do_send(Shutdown);
        rig.hear(90, &[other]).await;
        assert_eq!(rig.transfers.count(), 1);
    });
}

const DIFFERS: &str = "settings: other settings than the leader's";

/// A witness needs none of the settings in which members must agree.
#[test]
fn a_witness_that_leads_gives_leadership_to_a_member_whatever_its_settings_are() {
    sim_run(1, || async {
        let config = supervisor::Config {
            witness: true,
            settings: Hash::of(b"none"),
            ..supervisor::Config::default()
        };
        let rig = Rig::with(config, vec![]);
        rig.voters(3);
        rig.supervisor.do_send(leads(1));
        rig.hear(60, &[Condition { config: Hash::of(b"one"), ..fit(2) }]).await;
        assert_eq!(rig.transfers.take(), [TransferLeadership { term: Term(1), to: MemberId(2) }], "P6");
    });
}

#[test]
fn who_follows_a_witness_has_no_other_settings_than_its_leader() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        rig.supervisor.do_send(ExecutionFollowed { height: Height(0), root: root_of(Height(0)) });
        rig.supervisor.do_send(follows(1, 3));
        let other = Condition { config: Hash::of(b"old"), ..fit(3) };
        rig.hear(60, std::slice::from_ref(&other)).await;
        assert_eq!(rig.view().await.eligibility.reasons, [DIFFERS]);
        // The next one that leads is a witness, and what differed from the last one differs from nobody.
        rig.supervisor.do_send(follows(2, 2));
        let reasons = vec!["witness: it has no engine and no key".to_owned()];
        let witness = Condition { witness: true, reasons, config: Hash::of(b"none"), ..fit(2) };
        rig.hear(60, &[witness]).await;
        assert_eq!(rig.view().await.eligibility.reasons, [""; 0]);
    });
}

/// A rolling change of settings that is half done must not keep a chain from going on that would go on
/// if this leader had crashed.
#[test]
fn a_leader_without_a_grant_gives_leadership_to_other_settings_before_nobody() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        let others = [2, 3].map(|id| Condition { config: Hash::of(b"new"), ..unfit(id, DIFFERS) });
        rig.hear(60, &others).await;
        assert_eq!(rig.transfers.count(), 0, "D11: it makes blocks");
        rig.supervisor.do_send(EngineHealthChanged { trouble: Some("away".to_owned()) });
        rig.hear(60, &others).await;
        assert_eq!(rig.transfers.take(), [TransferLeadership { term: Term(1), to: MemberId(2) }], "L3");
    });
}

#[test]
fn a_leader_without_a_grant_prefers_its_own_settings() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        let others = [Condition { config: Hash::of(b"new"), ..unfit(2, DIFFERS) }, fit(3)];
        rig.hear(60, &others).await;
        rig.supervisor.do_send(EngineHealthChanged { trouble: Some("away".to_owned()) });
        rig.hear(60, &others).await;
        assert_eq!(rig.transfers.take(), [TransferLeadership { term: Term(1), to: MemberId(3) }], "D11");
    });
}

/// Its engine answers again while the other catches up: it goes on by itself.
#[test]
fn a_hand_over_to_other_settings_is_given_up_when_the_leader_can_produce_again() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        let behind =
            Condition { config: Hash::of(b"new"), tip: Height(7), executed: Height(5), ..unfit(2, DIFFERS) };
        rig.hear(60, std::slice::from_ref(&behind)).await;
        rig.supervisor.do_send(EngineHealthChanged { trouble: Some("away".to_owned()) });
        rig.hear(60, std::slice::from_ref(&behind)).await;
        assert!(rig.view().await.hand_over.is_some_and(|waits| waits.contains("n2")), "F2: it waits");
        rig.supervisor.do_send(EngineHealthChanged { trouble: None });
        rig.hear(60, std::slice::from_ref(&behind)).await;
        let view = rig.view().await;
        assert_eq!((view.hand_over, view.grant.map(|grant| grant.term)), (None, Some(Term(1))));
        rig.hear(300, &[Condition { executed: Height(7), ..behind }]).await;
        assert_eq!(rig.transfers.count(), 0);
    });
}

#[test]
fn a_leader_whose_blocks_do_not_come_gives_leadership_to_other_settings_before_nobody() {
    sim_run(1, || async {
        let config =
            supervisor::Config { stalled_after: Duration::from_secs(1), ..supervisor::Config::default() };
        let log = Log::default();
        let rig = Rig::with(config, vec![finishing(&log, 5)]);
        rig.voters(3);
        elect(&rig.supervisor, 1);
        let other = Condition { config: Hash::of(b"new"), ..unfit(2, DIFFERS) };
        rig.hear(900, std::slice::from_ref(&other)).await;
        assert_eq!(rig.transfers.count(), 0);
        rig.hear(600, &[other]).await;
        assert_eq!(rig.transfers.take(), [TransferLeadership { term: Term(1), to: MemberId(2) }], "L3");
    });
}

#[test]
fn who_is_not_fit_stands_only_when_no_leader_appears() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        rig.supervisor.do_send(follows(1, 2));
        rig.hear(3_000, &[fit(2), fit(3)]).await;
        assert_eq!(rig.campaign.take(), [Campaign { allowed: false }]);
        assert_eq!(rig.stand.count(), 0);
        // The leader is gone, and the other does not stand.
        rig.hear(300, &[fit(3)]).await;
        assert_eq!(rig.stand.count(), 0, "it is fit, and may win");
        rig.hear(600, &[fit(3)]).await;
        assert!(rig.stand.count() > 0);
    });
}

#[test]
fn each_change_of_leader_is_audited_once_with_its_cause() {
    sim_run(1, || async {
        let rig = Rig::new(vec![]);
        rig.voters(3);
        rig.supervisor.do_send(follows(1, 2));
        rig.hear(90, &[Condition { producing: true, ..fit(2) }]).await;
        rig.supervisor.do_send(follows(1, 2));
        pass(500).await;
        rig.supervisor.do_send(LeadershipChanged { term: Term(2), role: Role::Candidate, leader: None });
        rig.supervisor.do_send(leads(2));
        pass(1).await;
        let audited: Vec<_> =
            rig.audited.take().iter().map(|line| (line.term.0, line.leader.0, line.cause)).collect();
        assert_eq!(audited, [(1, 2, "start"), (2, 1, "lost")]);
        rig.supervisor.do_send(Applied { tip: Tip { term: Term(2), ..Tip::default() } });
        let last = rig.view().await.last_failover.expect("there was a first block");
        assert_eq!((last.term, last.cause), (Term(2), "lost"));
        assert!((400..=600).contains(&last.took_ms), "{last:?}");
    });
}

/// What happens to producers, checked at every step: each is started once, and never beside
/// another that is not gone.
#[derive(Default)]
struct Ledger {
    alive: std::collections::BTreeMap<&'static str, u32>,
    started: u32,
    gone: u32,
    hanging: u32,
}

type Shared = Rc<RefCell<Ledger>>;

/// A producer that may end by itself, or take long to go, as chance has it.
fn moody(name: &'static str, ledger: &Shared, rng: &Rc<RefCell<rand::rngs::StdRng>>) -> Producer {
    let (ledger, rng) = (ledger.clone(), rng.clone());
    Producer::new(name, move |_| {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (done, gone) = tokio::sync::oneshot::channel();
        let (dies_after, lingers) = {
            let mut rng = rng.borrow_mut();
            let dies = rng.random_ratio(1, 6).then(|| rng.random_range(1..3_000));
            let lingers = rng.random_ratio(1, 6).then(|| rng.random_range(1..9_000));
            (dies, lingers)
        };
        {
            let mut ledger = ledger.borrow_mut();
            let alive = ledger.alive.entry(name).or_default();
            assert_eq!(*alive, 0, "a second {name} was started beside the first");
            *alive += 1;
            ledger.started += 1;
        }
        let ledger = ledger.clone();
        tokio::task::spawn_local(async move {
            let dies = async {
                match dies_after {
                    Some(after) => pass(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = stopped => {}
                () = dies => {}
            }
            if let Some(longer) = lingers {
                ledger.borrow_mut().hanging += u32::from(longer > 2_000);
                pass(longer).await;
            }
            let mut ledger = ledger.borrow_mut();
            *ledger.alive.get_mut(name).expect("it was started") -= 1;
            ledger.gone += 1;
            let _ = done.send(());
        });
        Child::new(name, stop, gone)
    })
}

#[test]
fn in_any_order_with_any_failure_each_producer_starts_once_and_none_is_left_behind() {
    let (starts, slow) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    sim::listed_seeds("the_supervisor::in_any_order", 60, |seed| {
        let (started, hanging) = sim_run(seed, move || async move {
            let rng = Rc::new(RefCell::new(rand::rngs::StdRng::seed_from_u64(seed)));
            let ledger = Shared::default();
            let producers = ["da submitter", "executor", "reaper"].map(|name| moody(name, &ledger, &rng));
            let rig = Rig::new(producers.into());
            rig.voters(3);
            let mut term = 1;
            for _ in 0..80 {
                let (what, wait) = {
                    let mut rng = rng.borrow_mut();
                    (rng.random_range(0..9), rng.random_range(0..400))
                };
                match what {
                    0 | 1 => elect(&rig.supervisor, {
                        term += 1;
                        term
                    }),
                    2 => rig.supervisor.do_send(follows(term, 2)),
                    3 => rig.supervisor.do_send(EngineHealthChanged { trouble: Some("away".to_owned()) }),
                    4 => rig.supervisor.do_send(EngineHealthChanged { trouble: None }),
                    5 => drop(rig.hand_off(None)),
                    6 => *rig.answer.borrow_mut() = Err(TransferError::Target("scripted".to_owned())),
                    7 => *rig.answer.borrow_mut() = Err(TransferError::NoSuccessor(300)),
                    _ => rig.pause(Some("scripted")),
                }
                rig.pause(None);
                rig.hear(wait, &[fit(2), fit(3)]).await;
            }
            rig.supervisor.do_send(EngineHealthChanged { trouble: None });
            rig.supervisor.send(Shutdown).await.expect("answered when all are gone");
            let ledger = ledger.borrow();
            assert!(ledger.alive.values().all(|alive| *alive == 0), "left behind: {:?}", ledger.alive);
            assert_eq!(ledger.started, ledger.gone, "each is stopped once");
            (ledger.started, ledger.hanging)
        });
        starts.set(starts.get() + started);
        slow.set(slow.get() + hanging);
    });
    // One seed alone may have tried nothing.
    if std::env::var_os("BATON_SEED").is_none() {
        assert!(starts.get() > 300, "only {} starts", starts.get());
        assert!(slow.get() > 10, "only {} stops took longer than their limit", slow.get());
    }
}
