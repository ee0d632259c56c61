//! The gatherer asks peers for the blocks that follow the tip, for a node that follows.
//!
//! Gossip brings new blocks by itself; this fetches what was made before the node came, or was
//! missed. It asks for headers and data of one range after the other and offers what it gets to the
//! syncer, which has the last word: who gave what turned out wrong is reported. It keeps nothing.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, MailboxError, Recipient, SpawnHandle, WrapFuture,
};
use baton_messages::chain::{P2pData, P2pSignedHeader};
use baton_messages::follow::{Candidate, CheckHeaders, DaHint, Judged, Offer, Origin, Piece};
use baton_messages::p2p::{
    FetchData, FetchError, FetchHead, FetchHeaders, Fetched, Offence, PeerChanged, PeerId, ReportPeer,
};
use baton_messages::types::{DaHeight, Height};
use baton_messages::wire::validate::{Invalid, Payload};
use baton_storage::Reader;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::{debug, info};

/// How peers are asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Blocks of one range.
    pub count: u64,
    /// How often peers are asked for their newest header while nothing new comes by itself.
    pub pause: Duration,
    /// How long peers may take.
    pub reply_within: Duration,
    /// How long the syncer may keep an offer until it has room.
    pub taken_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            count: 512,
            pause: Duration::from_secs(1),
            reply_within: Duration::from_secs(65),
            taken_within: Duration::from_secs(60),
        }
    }
}

/// Everything the gatherer says, and to whom.
#[derive(Clone, Debug)]
pub struct Links {
    /// Asks peers for their newest headers.
    pub head: Recipient<FetchHead>,
    /// Asks peers for headers.
    pub headers: Recipient<FetchHeaders>,
    /// Asks peers for data; `None` where only headers are kept.
    pub data: Option<Recipient<FetchData>>,
    /// Checks the signatures of the headers they give.
    pub check: Recipient<CheckHeaders>,
    /// Takes what they give.
    pub offer: Recipient<Offer>,
    /// Hears who gave what was wrong.
    pub report: Recipient<ReportPeer>,
    /// Hears where on DA blocks may be; `None` where DA is not followed.
    pub hint: Option<Recipient<DaHint>>,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The highest header that peers are known to have.
    pub highest: Gauge,
    /// Headers that peers gave.
    pub headers: Counter,
    /// Data that peers gave.
    pub data: Counter,
    /// Questions that nobody answered.
    pub failures: Counter,
    /// Pieces of peers that were wrong.
    pub wrong: Counter,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("gatherer");
        registry.register("highest", "Highest header that peers are known to have", self.highest.clone());
        registry.register("headers", "Headers that peers gave", self.headers.clone());
        registry.register("data", "Data that peers gave", self.data.clone());
        registry.register("failures", "Questions to peers that nobody answered", self.failures.clone());
        registry.register("wrong", "Headers and data of peers that were wrong", self.wrong.clone());
    }
}

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no reply from the {who}: {source}")]
    NoReply { who: &'static str, source: MailboxError },
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Ask for these blocks.
    Range(Height, u64),
    /// Ask how far peers are.
    Head,
    /// Blocks come by themselves, or are on their way into the store.
    Nothing,
}

/// How far peers were asked, and how far they are.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    /// The highest height that peers are known to have.
    highest: Height,
    /// Everything up to here was asked for.
    asked: Height,
    /// The tip when it was looked at last.
    tip: Height,
    /// The last range had nothing: of the next one a single block is asked for.
    nothing: bool,
}

impl Plan {
    /// Decides with the tip of now. `rested`: there was a pause since the last decision.
    fn next(&mut self, tip: Height, first: Height, count: u64, rested: bool) -> Next {
        let grew = tip > self.tip;
        self.tip = tip;
        // What was asked for and did not get in until now is asked for again.
        if rested && !grew {
            self.asked = tip;
        }
        self.asked = self.asked.max(tip);
        self.highest = self.highest.max(tip);
        if self.asked < self.highest {
            let from = self.asked.next().max(first);
            let count = if self.nothing { 1 } else { count };
            return Next::Range(
                from,
                count.min(self.highest.0.saturating_add(1).saturating_sub(from.0)).max(1),
            );
        }
        if rested && !grew && self.asked <= tip { Next::Head } else { Next::Nothing }
    }

    /// The proposer has signed a header of this height: there are blocks up to it.
    fn saw(&mut self, height: Height) {
        self.highest = self.highest.max(height);
    }

    /// These came of a range that was asked for.
    fn came(&mut self, from: Height, headers: u64) {
        let last = Height(from.0.saturating_add(headers)).previous();
        self.asked = self.asked.max(last);
        self.nothing = headers == 0;
        if headers == 0 {
            // Nobody has it, whoever said so.
            self.highest = self.tip;
        }
    }
}

/// What a round came to.
#[derive(Debug)]
enum Round {
    /// Peers are that far.
    Heads(Height),
    /// Of a range so many headers came; `seen` is the highest header that was seen anywhere.
    Came { from: Height, headers: u64, data: u64, wrong: u64, seen: Height },
}

/// The gatherer.
#[derive(Debug)]
pub struct Gatherer {
    config: Config,
    links: Links,
    metrics: Metrics,
    reader: Reader,
    plan: Plan,
    busy: bool,
    pause: Option<SpawnHandle>,
}

impl Gatherer {
    /// A gatherer that begins when it is started.
    #[must_use]
    pub fn new(config: Config, links: Links, metrics: Metrics, reader: Reader) -> Self {
        Self { config, links, metrics, reader, plan: Plan::default(), busy: false, pause: None }
    }

    fn begin_round(&mut self, rested: bool, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        if let Some(pause) = self.pause.take() {
            ctx.cancel_future(pause);
        }
        let (tip, first) = (self.reader.tip().height, self.reader.initial_height());
        let asking = Asking { config: self.config.clone(), links: self.links.clone() };
        let round: futures::future::LocalBoxFuture<'static, Result<Round, Error>> =
            match self.plan.next(tip, first, self.config.count, rested) {
                Next::Range(from, count) => Box::pin(asking.range(from, count)),
                Next::Head => Box::pin(asking.heads()),
                Next::Nothing => return self.rest(ctx),
            };
        self.busy = true;
        ctx.spawn(round.into_actor(self).map(|round, this, ctx| this.end_round(round, ctx)));
    }

    fn end_round(&mut self, round: Result<Round, Error>, ctx: &mut Context<Self>) {
        self.busy = false;
        match round {
            Ok(Round::Heads(highest)) => {
                if highest > self.plan.highest {
                    info!(highest = highest.0, tip = self.plan.tip.0, "peers have more of the chain");
                    self.plan.highest = highest;
                    self.metrics.highest.set(i64::try_from(highest.0).unwrap_or(i64::MAX));
                    return self.begin_round(false, ctx);
                }
            }
            Ok(Round::Came { from, headers, data, wrong, seen }) => {
                self.metrics.headers.inc_by(headers);
                self.metrics.data.inc_by(data);
                self.metrics.wrong.inc_by(wrong);
                self.plan.came(from, headers);
                if headers > 0 {
                    self.plan.saw(seen);
                }
                // A range that was not wholly right is asked for again, after a pause.
                if headers > 0 && wrong == 0 {
                    return self.begin_round(false, ctx);
                }
            }
            Err(error) => {
                self.metrics.failures.inc();
                debug!(%error, "peers gave nothing");
            }
        }
        self.rest(ctx);
    }

    fn rest(&mut self, ctx: &mut Context<Self>) {
        let timer = ctx.run_later(self.config.pause, |this, ctx| {
            this.pause = None;
            this.begin_round(true, ctx);
        });
        self.pause = Some(timer);
    }
}

impl Actor for Gatherer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.begin_round(true, ctx);
    }
}

impl Handler<PeerChanged> for Gatherer {
    type Result = ();

    fn handle(&mut self, message: PeerChanged, ctx: &mut Context<Self>) {
        if message.connected {
            self.begin_round(true, ctx);
        }
    }
}

/// The questions of one round, so that the actor is untouched while they are asked.
struct Asking {
    config: Config,
    links: Links,
}

impl Asking {
    async fn heads(self) -> Result<Round, Error> {
        let heads = self.links.head.send(FetchHead).timeout(self.config.reply_within).await;
        let heads = heads.map_err(|source| Error::NoReply { who: "peer-to-peer actor", source })??;
        let candidates = heads.iter().map(|given| header(&given.peer, &given.item)).collect();
        let (judged, seen) = self.offer(candidates).await?;
        let good = heads.iter().zip(&judged).filter(|(_, judged)| !is_wrong(judged));
        let highest = good.map(|(given, _)| given.item.signed.header.height).max();
        // Those who were asked may be behind, or say so: gossip and DA tell of what they do not.
        Ok(Round::Heads(highest.unwrap_or_default().max(seen)))
    }

    async fn range(self, from: Height, count: u64) -> Result<Round, Error> {
        let within = self.config.reply_within;
        let headers = self.links.headers.send(FetchHeaders { from, count }).timeout(within);
        let data = async {
            let data = self.links.data.as_ref()?;
            Some(data.send(FetchData { from, count }).timeout(within).await)
        };
        let (headers, data) = futures::future::join(headers, data).await;
        let who = "peer-to-peer actor";
        let headers = match headers.map_err(|source| Error::NoReply { who, source })? {
            Ok(headers) => headers,
            Err(FetchError::NotFound { .. }) => vec![],
            Err(error) => return Err(error.into()),
        };
        // Headers alone are worth something: blocks without transactions need no data.
        let data = data.transpose().map_err(|source| Error::NoReply { who, source })?;
        let data = data.and_then(Result::ok).unwrap_or_default();
        let (of_headers, of_data) = (headers.len() as u64, data.len() as u64);
        self.hint(&headers, &data);
        let (headers, forged) = self.check(&headers).await?;
        let (judged, seen) = self.offer(in_order(headers, &data)).await?;
        let wrong = judged.iter().filter(|judged| is_wrong(judged)).count() as u64;
        Ok(Round::Came { from, headers: of_headers, data: of_data, wrong: wrong + forged, seen })
    }

    /// Headers that are what they seem, and how many are not: who gave those is reported.
    async fn check(&self, headers: &Fetched<P2pSignedHeader>) -> Result<(Vec<Candidate>, u64), Error> {
        let signed: Vec<_> = headers.iter().map(|given| Arc::new(given.item.signed.clone())).collect();
        let verdicts = self.links.check.send(CheckHeaders(signed.clone())).timeout(self.config.reply_within);
        let verdicts = verdicts.await.map_err(|source| Error::NoReply { who: "checker", source })?;
        let (mut good, mut forged) = (Vec::with_capacity(signed.len()), 0);
        for ((given, signed), verdict) in headers.iter().zip(signed).zip(verdicts) {
            let origin = Origin::Peer(given.peer.0.clone());
            match verdict {
                Ok(Payload::Wire | Payload::Custom) => {
                    good.push(Candidate { piece: Piece::Checked(signed), origin });
                }
                // In the encoding of old chains it may have a twin, and time may cure the other: the syncer
                // says what it does with them.
                Ok(Payload::Legacy) | Err(Invalid::FromTheFuture { .. }) => {
                    good.push(Candidate { piece: Piece::Header(signed), origin });
                }
                Err(wrong) => {
                    forged += 1;
                    self.report(&given.peer, wrong.to_string());
                }
            }
        }
        Ok((good, forged))
    }

    fn report(&self, peer: &PeerId, reason: String) {
        self.links.report.do_send(ReportPeer { peer: peer.clone(), offence: Offence::Lie, reason });
    }

    /// Offers pieces, and reports who gave those that are wrong. What became of them, and the highest
    /// header that the syncer has seen.
    async fn offer(&self, candidates: Vec<Candidate>) -> Result<(Vec<Judged>, Height), Error> {
        if candidates.is_empty() {
            return Ok((vec![], Height(0)));
        }
        let origins: Vec<Origin> = candidates.iter().map(|candidate| candidate.origin.clone()).collect();
        let offer = Offer { candidates, read: None };
        let taken = self.links.offer.send(offer).timeout(self.config.taken_within).await;
        let taken = taken.map_err(|source| Error::NoReply { who: "syncer", source })?;
        for (origin, judged) in origins.iter().zip(&taken.judged) {
            if let (Origin::Peer(peer), Judged::Invalid(reason)) = (origin, judged) {
                self.report(&PeerId(peer.clone()), reason.clone());
            }
        }
        Ok((taken.judged, taken.highest))
    }

    /// The last hint is enough: what is on DA before it is read in its turn.
    fn hint(&self, headers: &Fetched<P2pSignedHeader>, data: &Fetched<P2pData>) {
        let Some(link) = &self.links.hint else { return };
        let hints = headers.iter().map(|given| given.item.da_height_hint);
        let hints = hints.chain(data.iter().map(|given| given.item.da_height_hint));
        if let Some(hint) = hints.filter(|hint| *hint > 0).max() {
            link.do_send(DaHint(DaHeight(hint)));
        }
    }
}

const fn is_wrong(judged: &Judged) -> bool {
    matches!(judged, Judged::Invalid(_))
}

fn header(peer: &PeerId, item: &P2pSignedHeader) -> Candidate {
    let piece = Piece::Header(Arc::new(item.signed.clone()));
    Candidate { piece, origin: Origin::Peer(peer.0.clone()) }
}

/// Headers and data by height, each header before its data.
fn in_order(headers: Vec<Candidate>, data: &Fetched<P2pData>) -> Vec<Candidate> {
    let mut data = data.iter().peekable();
    let mut all = Vec::with_capacity(headers.len() + data.len());
    for header in headers {
        let height = match &header.piece {
            Piece::Header(signed) | Piece::Checked(signed) => signed.header.height,
            Piece::Data(_) => continue,
        };
        all.push(header);
        let is_next =
            |item: &P2pData| item.data.metadata.as_ref().is_some_and(|metadata| metadata.height <= height);
        while let Some(given) = data.next_if(|given| is_next(&given.item)) {
            let piece = Piece::Data(Arc::new(given.item.data.clone()));
            all.push(Candidate { piece, origin: Origin::Peer(given.peer.0.clone()) });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Height = Height(1);

    #[test]
    fn ranges_follow_each_other_up_to_what_peers_have() {
        let mut plan = Plan::default();
        assert_eq!(plan.next(Height(0), FIRST, 10, true), Next::Head);
        plan.highest = Height(25);
        assert_eq!(plan.next(Height(0), FIRST, 10, false), Next::Range(Height(1), 10));
        plan.came(Height(1), 10);
        assert_eq!(plan.next(Height(3), FIRST, 10, false), Next::Range(Height(11), 10));
        plan.came(Height(11), 4);
        assert_eq!(
            plan.next(Height(3), FIRST, 10, false),
            Next::Range(Height(15), 10),
            "a short answer is continued"
        );
        plan.came(Height(15), 10);
        assert_eq!(plan.next(Height(9), FIRST, 10, false), Next::Range(Height(25), 1));
        plan.came(Height(25), 1);
        assert_eq!(plan.next(Height(9), FIRST, 10, false), Next::Nothing, "all of it was asked for");
    }

    #[test]
    fn what_does_not_get_in_is_asked_for_again() {
        let mut plan = Plan { highest: Height(20), ..Plan::default() };
        assert_eq!(plan.next(Height(5), FIRST, 100, false), Next::Range(Height(6), 15));
        plan.came(Height(6), 15);
        assert_eq!(plan.next(Height(9), FIRST, 100, true), Next::Nothing, "it gets in");
        assert_eq!(plan.next(Height(9), FIRST, 100, true), Next::Range(Height(10), 11));
    }

    #[test]
    fn peers_are_asked_for_their_head_only_when_nothing_comes_by_itself() {
        let mut plan = Plan::default();
        assert_eq!(plan.next(Height(5), FIRST, 10, true), Next::Nothing, "gossip brings it");
        assert_eq!(plan.next(Height(6), FIRST, 10, true), Next::Nothing);
        assert_eq!(plan.next(Height(6), FIRST, 10, true), Next::Head);
    }

    #[test]
    fn a_head_that_nobody_has_is_forgotten() {
        let mut plan = Plan { highest: Height(1_000_000), ..Plan::default() };
        assert_eq!(plan.next(Height(5), FIRST, 10, false), Next::Range(Height(6), 10));
        plan.came(Height(6), 0);
        assert_eq!(plan.next(Height(5), FIRST, 10, true), Next::Head);
        plan.highest = Height(1_000_000);
        assert_eq!(
            plan.next(Height(5), FIRST, 10, false),
            Next::Range(Height(6), 1),
            "it may be said for ever"
        );
        plan.came(Height(6), 1);
        assert_eq!(plan.next(Height(5), FIRST, 10, false), Next::Range(Height(7), 10));
    }

    #[test]
    fn what_was_seen_of_the_chain_elsewhere_is_asked_for_too() {
        let mut plan = Plan { highest: Height(6), ..Plan::default() };
        assert_eq!(plan.next(Height(5), FIRST, 10, false), Next::Range(Height(6), 1));
        plan.came(Height(6), 1);
        plan.saw(Height(30));
        assert_eq!(plan.next(Height(5), FIRST, 10, false), Next::Range(Height(7), 10));
        plan.saw(Height(3));
        assert_eq!(plan.highest, Height(30));
    }

    #[test]
    fn a_chain_that_begins_further_up_is_asked_for_from_there() {
        let mut plan = Plan { highest: Height(8), ..Plan::default() };
        assert_eq!(plan.next(Height(0), Height(5), 10, false), Next::Range(Height(5), 4));
    }
}
