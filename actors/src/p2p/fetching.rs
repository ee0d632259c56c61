//! What other actors asked for and what becomes of it: ranges, heads, single items.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::p2p::{FetchError, Fetched, Given, Item, MAX_FETCH, MAX_HEADS, PeerId};
use baton_messages::types::{Height, Timestamp};
use baton_messages::wire::exchange::{HeaderRequest, HeaderResponse};
use baton_messages::wire::p2p::Service;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::answers::{Carried, Expected, Wrong};
use super::network::{AskFailure, AskId, Command};
use super::peers::Deed;
use super::range::{self, Range};
use super::{Names, P2p, gauge, metrics};

/// A head may take so long; whoever is slower is left out.
const HEAD_WITHIN: Duration = Duration::from_secs(2);
/// Peers that are asked for an item by its hash.
const HASH_TRIES: usize = 4;

type Reply<T> = oneshot::Sender<Result<T, FetchError>>;

struct RangeJob<T> {
    range: Range<T>,
    reply: Reply<Fetched<T>>,
}

struct HeadJob {
    open: BTreeMap<AskId, PeerId>,
    asked: usize,
    found: Fetched<P2pSignedHeader>,
    until: Instant,
    reply: Reply<Fetched<P2pSignedHeader>>,
}

struct HashJob {
    service: Service,
    hash: Bytes,
    open: Option<(AskId, PeerId, Instant)>,
    tried: Vec<PeerId>,
    reply: Reply<(PeerId, Item)>,
}

enum Job {
    Headers(RangeJob<P2pSignedHeader>),
    Data(RangeJob<P2pData>),
    Head(HeadJob),
    Hash(HashJob),
}

/// Names a request.
type JobId = u64;

/// The requests that are on their way.
pub(super) struct Fetches {
    config: range::Config,
    limit: usize,
    chain_id: String,
    names: Names,
    next: JobId,
    jobs: BTreeMap<JobId, Job>,
    asks: BTreeMap<AskId, Ask>,
    /// How often heads were asked for.
    heads: usize,
}

/// A question that the network has not come back on. It may outlive its request.
struct Ask {
    job: JobId,
    peer: PeerId,
}

/// What is to be asked.
struct Asking {
    id: AskId,
    peer: PeerId,
    service: Service,
    request: HeaderRequest,
}

/// What an answer says about the peer that gave it.
struct Report {
    peer: PeerId,
    service: Service,
    deed: Deed,
    items: usize,
    outcome: &'static str,
    wrong: Option<Wrong>,
}

impl Fetches {
    pub(super) fn new(config: range::Config, limit: usize, chain_id: &str) -> Self {
        Self {
            config,
            limit,
            chain_id: chain_id.to_owned(),
            names: Names::default(),
            next: 0,
            jobs: BTreeMap::new(),
            asks: BTreeMap::new(),
            heads: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    fn add<T>(&mut self, reply: Reply<T>, job: impl FnOnce(Reply<T>) -> Job) -> Option<JobId> {
        if self.jobs.len() >= self.limit {
            let _ = reply.send(Err(FetchError::Busy { limit: self.limit }));
            return None;
        }
        self.next += 1;
        self.jobs.insert(self.next, job(reply));
        Some(self.next)
    }

    fn range<T>(&self, from: Height, count: u64) -> Range<T> {
        Range::new(self.config, from, count.clamp(1, MAX_FETCH), Instant::now())
    }

    pub(super) fn headers(&mut self, from: Height, count: u64, reply: Reply<Fetched<P2pSignedHeader>>) {
        let range = self.range(from, count);
        self.add(reply, |reply| Job::Headers(RangeJob { range, reply }));
    }

    pub(super) fn data(&mut self, from: Height, count: u64, reply: Reply<Fetched<P2pData>>) {
        let range = self.range(from, count);
        self.add(reply, |reply| Job::Data(RangeJob { range, reply }));
    }

    /// What to ask for one request, given who can be asked.
    fn questions(&mut self, job: JobId, peers: &[(PeerId, usize)], now: Instant) -> Vec<Asking> {
        let Some(found) = self.jobs.get_mut(&job) else { return vec![] };
        let names = &mut self.names;
        let asking = match found {
            Job::Headers(RangeJob { range, .. }) => {
                ranges(Service::Headers, range.questions(peers, now, || names.next()))
            }
            Job::Data(RangeJob { range, .. }) => {
                ranges(Service::Data, range.questions(peers, now, || names.next()))
            }
            Job::Hash(hash) if hash.open.is_none() && hash.tried.len() < HASH_TRIES => {
                let fit = peers.iter().find(|(peer, room)| *room > 0 && !hash.tried.contains(peer));
                fit.map(|(peer, _)| hash.ask(names.next(), peer, now)).into_iter().collect()
            }
            Job::Head(_) | Job::Hash(_) => vec![],
        };
        for Asking { id, peer, .. } in &asking {
            self.asks.insert(*id, Ask { job, peer: peer.clone() });
        }
        asking
    }

    /// Ends the requests from which nothing more is to be expected.
    fn end(&mut self, now: Instant, peers: &[(PeerId, usize)]) {
        let over = |job: &Job| match job {
            // Nobody waits for the answer any more.
            Job::Headers(job) => job.reply.is_closed() || job.range.is_over(now),
            Job::Data(job) => job.reply.is_closed() || job.range.is_over(now),
            Job::Head(job) => job.reply.is_closed() || job.open.is_empty() || job.until <= now,
            Job::Hash(job) => {
                let more = peers.iter().any(|(peer, _)| !job.tried.contains(peer));
                let given_up = job.tried.len() >= HASH_TRIES || !more;
                job.reply.is_closed() || (job.open.is_none() && given_up)
            }
        };
        let over: Vec<JobId> = self.jobs.iter().filter(|(_, job)| over(job)).map(|(id, _)| *id).collect();
        for id in over {
            match self.jobs.remove(&id) {
                Some(Job::Headers(RangeJob { range, reply })) => drop(reply.send(range.end())),
                Some(Job::Data(RangeJob { range, reply })) => drop(reply.send(range.end())),
                Some(Job::Head(head)) => head.end(),
                Some(Job::Hash(HashJob { tried, reply, .. })) => {
                    let error = match tried.len() {
                        0 => FetchError::NoPeers,
                        asked => FetchError::NotFound { asked },
                    };
                    let _ = reply.send(Err(error));
                }
                None => {}
            }
        }
    }

    /// Takes an answer. What it says about the peer, where somebody still waits for it.
    fn answered(
        &mut self,
        job_id: JobId,
        id: AskId,
        outcome: &Result<Vec<HeaderResponse>, AskFailure>,
        took: Duration,
        now: Timestamp,
    ) -> Option<Report> {
        let job = self.jobs.get_mut(&job_id)?;
        let expected = Expected { chain_id: &self.chain_id, now };
        match job {
            Job::Headers(RangeJob { range, .. }) => {
                answered_range(range, Service::Headers, id, outcome, took, expected)
            }
            Job::Data(RangeJob { range, .. }) => {
                answered_range(range, Service::Data, id, outcome, took, expected)
            }
            Job::Head(head) => head.answered(id, outcome, took, expected),
            Job::Hash(hash) => {
                let (report, found) = hash.answered(id, outcome, took, expected)?;
                if let Some(found) = found
                    && let Some(Job::Hash(HashJob { reply, .. })) = self.jobs.remove(&job_id)
                {
                    let _ = reply.send(Ok((report.peer.clone(), found)));
                }
                Some(report)
            }
        }
    }

    /// Gives up the questions that take too long. Whose they were.
    fn expire(&mut self, now: Instant) -> Vec<(Service, PeerId)> {
        let mut silent = vec![];
        let within = self.config.answer_within;
        for job in self.jobs.values_mut() {
            let (service, expired) = match job {
                Job::Headers(RangeJob { range, .. }) => (Service::Headers, range.expired(now)),
                Job::Data(RangeJob { range, .. }) => (Service::Data, range.expired(now)),
                Job::Head(head) if head.until <= now => {
                    (Service::Headers, std::mem::take(&mut head.open).into_iter().collect())
                }
                Job::Hash(hash) => {
                    let late = hash.open.take_if(|(.., since)| *since + within <= now);
                    (hash.service, late.map(|(id, peer, _)| (id, peer)).into_iter().collect())
                }
                Job::Head(_) => continue,
            };
            silent.extend(expired.into_iter().map(|(_, peer)| (service, peer)));
        }
        silent
    }
}

fn ranges(service: Service, questions: Vec<range::Question>) -> Vec<Asking> {
    let asking = |question: range::Question| Asking {
        id: question.id,
        peer: question.peer,
        service,
        request: HeaderRequest::Range { from: question.from, amount: question.amount },
    };
    questions.into_iter().map(asking).collect()
}

/// Whom to ask for heads of these, the best first: half of them are the best, which may be those
/// who answer fast and know little; the others are a few of the rest in turn.
fn heads_of(mut peers: Vec<PeerId>, round: usize) -> Vec<PeerId> {
    const BEST: usize = MAX_HEADS / 2;
    if peers.len() > MAX_HEADS {
        let mut rest = peers.split_off(BEST);
        // By name: their ranks change with every answer.
        rest.sort();
        let turn = (round % rest.len()) * BEST % rest.len();
        rest.rotate_left(turn);
        peers.extend(rest.into_iter().take(MAX_HEADS - BEST));
    }
    peers
}

fn bytes_of(responses: &[HeaderResponse]) -> usize {
    responses.iter().map(|response| response.body.len()).sum()
}

/// What a failed question says about the peer.
const fn deed_of(failure: &AskFailure) -> Deed {
    match failure {
        AskFailure::Unsupported => Deed::HadNothing,
        AskFailure::Closed | AskFailure::Timeout => Deed::Silent,
        AskFailure::Malformed(_) => Deed::Lied,
    }
}

fn answered_range<T: Carried>(
    range: &mut Range<T>,
    service: Service,
    id: AskId,
    outcome: &Result<Vec<HeaderResponse>, AskFailure>,
    took: Duration,
    expected: Expected<'_>,
) -> Option<Report> {
    let (peer, from, amount) = range.asked(id)?;
    let report = |deed, items, outcome, wrong| {
        Some(Report { peer: peer.clone(), service, deed, items, outcome, wrong })
    };
    let responses = match outcome {
        Ok(responses) => responses,
        Err(failure) => {
            range.failed(id, &format!("{failure:?}"));
            return report(deed_of(failure), 0, "failed", None);
        }
    };
    match expected.range::<T>(from, amount, responses) {
        Ok(items) if items.is_empty() => {
            range.answered(id, items, 0);
            report(Deed::HadNothing, 0, "nothing", None)
        }
        Ok(items) => {
            let (count, bytes) = (items.len(), bytes_of(responses));
            let weight = items.iter().map(|item| item.weight()).sum();
            range.answered(id, items, weight);
            report(Deed::Served { bytes, took }, count, "items", None)
        }
        // It has nothing whose time has come.
        Err(early) if early.is_excusable() => {
            range.answered(id, vec![], 0);
            report(Deed::HadNothing, 0, "early", Some(early))
        }
        Err(wrong) => {
            range.failed(id, &wrong.to_string());
            report(Deed::Lied, 0, "wrong", Some(wrong))
        }
    }
}

impl HeadJob {
    fn answered(
        &mut self,
        id: AskId,
        outcome: &Result<Vec<HeaderResponse>, AskFailure>,
        took: Duration,
        expected: Expected<'_>,
    ) -> Option<Report> {
        let peer = self.open.remove(&id)?;
        let service = Service::Headers;
        let (report, head) = single(peer, service, outcome, took, |responses| expected.head(responses));
        let deed = if matches!(report.deed, Deed::Served { .. }) { Deed::Told } else { report.deed };
        let report = Report { deed, ..report };
        let peer = report.peer.clone();
        self.found.extend(head.map(|head| Given { peer, item: Arc::new(head) }));
        Some(report)
    }

    fn end(mut self) {
        self.found.sort_by_key(|given| std::cmp::Reverse(given.item.height()));
        let answer = match (self.found.is_empty(), self.asked) {
            (false, _) => Ok(self.found),
            (true, 0) => Err(FetchError::NoPeers),
            (true, asked) => Err(FetchError::NotFound { asked }),
        };
        let _ = self.reply.send(answer);
    }
}

impl HashJob {
    fn ask(&mut self, id: AskId, peer: &PeerId, now: Instant) -> Asking {
        self.open = Some((id, peer.clone(), now));
        self.tried.push(peer.clone());
        let request = HeaderRequest::ByHash(self.hash.clone());
        Asking { id, peer: peer.clone(), service: self.service, request }
    }

    fn answered(
        &mut self,
        id: AskId,
        outcome: &Result<Vec<HeaderResponse>, AskFailure>,
        took: Duration,
        expected: Expected<'_>,
    ) -> Option<(Report, Option<Item>)> {
        let (_, peer, _) = self.open.take_if(|(open, ..)| *open == id)?;
        let hash = &self.hash[..];
        Some(match self.service {
            Service::Headers => {
                let (report, found) = single(peer, self.service, outcome, took, |responses| {
                    expected.with_hash(hash, responses)
                });
                (report, found.map(|header: P2pSignedHeader| Item::Header(Arc::new(header))))
            }
            Service::Data => {
                let (report, found) = single(peer, self.service, outcome, took, |responses| {
                    expected.with_hash(hash, responses)
                });
                (report, found.map(|data: P2pData| Item::Data(Arc::new(data))))
            }
        })
    }
}

fn single<T>(
    peer: PeerId,
    service: Service,
    outcome: &Result<Vec<HeaderResponse>, AskFailure>,
    took: Duration,
    check: impl FnOnce(&[HeaderResponse]) -> Result<Option<T>, Wrong>,
) -> (Report, Option<T>) {
    let report = |deed, items, outcome, wrong| Report { peer, service, deed, items, outcome, wrong };
    match outcome {
        Err(failure) => (report(deed_of(failure), 0, "failed", None), None),
        Ok(responses) => match check(responses) {
            Ok(None) => (report(Deed::HadNothing, 0, "nothing", None), None),
            Ok(Some(item)) => {
                (report(Deed::Served { bytes: bytes_of(responses), took }, 1, "items", None), Some(item))
            }
            Err(wrong) => {
                let deed = if wrong.is_excusable() { Deed::HadNothing } else { Deed::Lied };
                (report(deed, 0, "wrong", Some(wrong)), None)
            }
        },
    }
}

impl P2p {
    /// Asks what can be asked now, and ends what is over.
    pub(super) fn ask_on(&mut self) {
        let now = Instant::now();
        let jobs: Vec<JobId> = self.fetches.jobs.keys().copied().collect();
        for job in jobs {
            let peers = self.peers.to_ask();
            for asking in self.fetches.questions(job, &peers, now) {
                self.ask(asking);
            }
        }
        self.fetches.end(now, &self.peers.to_ask());
        self.metrics.fetches.set(gauge(self.fetches.len()));
    }

    fn ask(&mut self, asking: Asking) {
        let Asking { id, peer, service, request } = asking;
        self.peers.asked(&peer);
        let told = self.tell(Command::Ask { id, peer: peer.clone(), service, request });
        if !told && let Some(Ask { job, .. }) = self.fetches.asks.remove(&id) {
            // As if the peer had not answered, without blaming it.
            self.peers.answered(&peer);
            self.fetches.answered(job, id, &Err(AskFailure::Closed), Duration::ZERO, self.world.wall());
        }
    }

    pub(super) fn begin_head(&mut self, reply: Reply<Fetched<P2pSignedHeader>>) {
        let now = Instant::now();
        let fit = self.peers.to_ask().into_iter().filter(|(_, room)| *room > 0);
        let fit = heads_of(fit.map(|(peer, _)| peer).collect(), self.fetches.heads);
        self.fetches.heads = self.fetches.heads.wrapping_add(1);
        let open: BTreeMap<AskId, PeerId> =
            fit.into_iter().map(|peer| (self.fetches.names.next(), peer)).collect();
        let questions = open.clone();
        let job = |reply| {
            Job::Head(HeadJob { asked: open.len(), open, found: vec![], until: now + HEAD_WITHIN, reply })
        };
        let Some(job) = self.fetches.add(reply, job) else { return };
        for (id, peer) in questions {
            self.fetches.asks.insert(id, Ask { job, peer: peer.clone() });
            let request = HeaderRequest::Head;
            self.ask(Asking { id, peer, service: Service::Headers, request });
        }
        self.ask_on();
    }

    pub(super) fn begin_hash(&mut self, service: Service, hash: Bytes, reply: Reply<(PeerId, Item)>) {
        let job = |reply| Job::Hash(HashJob { service, hash, open: None, tried: vec![], reply });
        self.fetches.add(reply, job);
        self.ask_on();
    }

    pub(super) fn on_answered(
        &mut self,
        id: AskId,
        outcome: Result<Vec<HeaderResponse>, AskFailure>,
        took: Duration,
    ) {
        let Some(Ask { job, peer }) = self.fetches.asks.remove(&id) else { return };
        self.peers.answered(&peer);
        let report = self.fetches.answered(job, id, &outcome, took, self.world.wall());
        // Of a question that was given up nothing more is said.
        let Some(Report { peer, service, deed, items, outcome: name, wrong }) = report else { return };
        self.metrics.asked(service, name);
        let of = metrics::Of { service: metrics::name(service) };
        self.metrics.fetched.get_or_create(&of).inc_by(items as u64);
        if outcome == Err(AskFailure::Unsupported) {
            self.peers.does_not_serve(&peer);
        }
        match wrong {
            Some(wrong) if deed == Deed::Lied => warn!(%peer, reason = %wrong, "a peer gave a wrong answer"),
            Some(wrong) => debug!(%peer, reason = %wrong, "an answer is of no use"),
            None => {}
        }
        self.note(&peer, deed);
    }

    pub(super) fn expire_questions(&mut self, now: Instant) {
        for (service, peer) in self.fetches.expire(now) {
            // It counts as busy until the network comes back on it.
            debug!(%peer, "no answer in time");
            self.metrics.asked(service, "failed");
            self.note(&peer, Deed::Silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_has_a_turn_to_say_how_far_the_chain_is() {
        for count in 1..12 {
            let all: Vec<_> = (0..count).map(|number| PeerId::from(&*format!("peer {number:02}"))).collect();
            let mut asked = BTreeSet::new();
            for round in 0..all.len() {
                let heads = heads_of(all.clone(), round);
                assert_eq!(heads.len(), all.len().min(MAX_HEADS));
                assert_eq!(heads.iter().collect::<BTreeSet<_>>().len(), heads.len(), "nobody twice");
                assert!(heads.contains(&all[0]), "the best is always asked");
                asked.extend(heads);
            }
            assert_eq!(asked.len(), all.len(), "{count} peers");
        }
    }
}
