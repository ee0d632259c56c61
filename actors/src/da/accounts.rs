//! Which account pays for the next submission.
//!
//! A DA account numbers its transactions. Two submissions of one account at a time, or one after
//! a number was lost, are refused with a wrong sequence; so each account has a bounded number of
//! submissions under way, the accounts take turns, and one that was refused rests while others
//! go on. Who pays is outside of the blobs: their bytes are the same whoever does (P7).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_messages::da::DaError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The shortest and the longest rest of an account after a refusal.
const RESTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The label of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AccountLabel {
    /// Its address, as configured.
    pub account: String,
}

/// What is counted of accounts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Submissions that DA took.
    pub submissions: Family<AccountLabel, Counter>,
    /// Submissions that sent the account to rest.
    pub refusals: Family<AccountLabel, Counter>,
    /// Submissions under way.
    pub in_flight: Family<AccountLabel, Gauge>,
}

impl Metrics {
    /// Makes the metrics visible.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "da_account_submissions",
            "Submissions that an account paid for",
            self.submissions.clone(),
        );
        registry.register(
            "da_account_refusals",
            "Submissions that sent an account to rest",
            self.refusals.clone(),
        );
        registry.register(
            "da_account_in_flight",
            "Submissions of an account under way",
            self.in_flight.clone(),
        );
    }
}

/// What became of a submission, as far as its account is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// DA took it.
    Taken,
    /// It failed for a reason that is not the account's.
    Failed,
    /// The account's sequence is off, or DA does not let it pay.
    Refused,
    /// Nobody knows: the caller gave up. The number may be used or not.
    Unknown,
}

impl Outcome {
    /// What an answer says about the account.
    #[must_use]
    pub fn of<T>(answer: &Result<T, DaError>) -> Self {
        match answer {
            Ok(_) => Self::Taken,
            Err(DaError::AccountSequence(_) | DaError::Other(_)) => Self::Refused,
            Err(DaError::Unavailable(_) | DaError::NotIncluded(_) | DaError::AlreadyInMempool(_)) => {
                Self::Unknown
            }
            Err(DaError::TooBig(_) | DaError::FromTheFuture(_) | DaError::StaleGrant(_)) => Self::Failed,
        }
    }
}

#[derive(Clone, Debug)]
struct Account {
    address: String,
    in_flight: usize,
    /// The turn in which it was used last.
    turn: u64,
    refusals: u32,
    rests_until: Option<Instant>,
}

/// The configured accounts.
#[derive(Clone, Debug)]
pub struct Accounts {
    accounts: Vec<Account>,
    most_in_flight: usize,
    turn: u64,
}

impl Accounts {
    /// Accounts by address, with so many submissions under way each. Addresses that are named
    /// twice are one account.
    #[must_use]
    pub fn new(addresses: &[String], most_in_flight: usize) -> Self {
        let mut accounts: Vec<Account> = Vec::new();
        for address in addresses {
            if accounts.iter().all(|known| known.address != *address) {
                let address = address.clone();
                accounts.push(Account { address, in_flight: 0, turn: 0, refusals: 0, rests_until: None });
            }
        }
        Self { accounts, most_in_flight: most_in_flight.max(1), turn: 0 }
    }

    /// Whether none is configured: the DA node chooses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Takes the account whose turn it is; `None` when all are busy. Who rests is taken only when
    /// nobody else is free, the one first that rests the shortest: the submitter has pauses of
    /// its own.
    pub fn take(&mut self, now: Instant) -> Option<usize> {
        let most = self.most_in_flight;
        let free = self.accounts.iter_mut().enumerate().filter(|(_, account)| account.in_flight < most);
        let rests = |account: &Account| account.rests_until.filter(|until| *until > now);
        let (index, account) = free.min_by_key(|(_, account)| (rests(account), account.turn))?;
        self.turn += 1;
        account.turn = self.turn;
        account.in_flight += 1;
        Some(index)
    }

    /// The address of an account that was taken.
    #[must_use]
    pub fn address(&self, index: usize) -> &str {
        &self.accounts[index].address
    }

    /// Gives an account back.
    pub fn give_back(&mut self, index: usize, outcome: Outcome, now: Instant) {
        let account = &mut self.accounts[index];
        account.in_flight -= 1;
        match outcome {
            Outcome::Taken => {
                account.refusals = 0;
                account.rests_until = None;
            }
            Outcome::Failed => {}
            Outcome::Refused => {
                account.refusals += 1;
                let (shortest, longest) = RESTS;
                let rest = (shortest * 2u32.pow(account.refusals.min(8) - 1)).min(longest);
                account.rests_until = Some(now + rest);
            }
            Outcome::Unknown => account.rests_until = Some(now + RESTS.0),
        }
    }

    /// How many submissions of an account are under way.
    #[must_use]
    pub fn in_flight(&self, index: usize) -> usize {
        self.accounts[index].in_flight
    }
}

/// The accounts of one client, and who waits for them.
#[derive(Debug)]
pub struct Payers {
    accounts: Mutex<Accounts>,
    freed: Notify,
    metrics: Metrics,
}

impl Payers {
    /// Payers from these accounts.
    #[must_use]
    pub fn new(accounts: Accounts, metrics: Metrics) -> Self {
        Self { accounts: Mutex::new(accounts), freed: Notify::new(), metrics }
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        // Nothing can panic half way through a change.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the account whose turn it is; `None` when none is configured.
    pub async fn next(&self) -> Option<Turn<'_>> {
        loop {
            let freed = self.freed.notified();
            {
                let mut accounts = self.accounts();
                if accounts.is_empty() {
                    return None;
                }
                if let Some(index) = accounts.take(Instant::now()) {
                    let address = accounts.address(index).to_owned();
                    self.show(&accounts, index);
                    return Some(Turn { payers: self, index, address, outcome: Outcome::Unknown });
                }
            }
            freed.await;
        }
    }

    fn show(&self, accounts: &Accounts, index: usize) {
        let label = AccountLabel { account: accounts.address(index).to_owned() };
        let in_flight = i64::try_from(accounts.in_flight(index)).unwrap_or(i64::MAX);
        self.metrics.in_flight.get_or_create(&label).set(in_flight);
    }
}

/// One submission's account. It goes back when this is dropped; a submission that was given up
/// counts as one whose outcome nobody knows.
#[derive(Debug)]
pub struct Turn<'a> {
    payers: &'a Payers,
    index: usize,
    /// The account's address.
    pub address: String,
    outcome: Outcome,
}

impl Turn<'_> {
    /// Gives the account back with what became of the submission.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut accounts = self.payers.accounts();
        accounts.give_back(self.index, self.outcome, Instant::now());
        self.payers.show(&accounts, self.index);
        drop(accounts);
        let label = AccountLabel { account: self.address.clone() };
        match self.outcome {
            Outcome::Taken => {
                self.payers.metrics.submissions.get_or_create(&label).inc();
            }
            Outcome::Refused => {
                self.payers.metrics.refusals.get_or_create(&label).inc();
            }
            Outcome::Failed | Outcome::Unknown => {}
        }
        self.payers.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Accounts {
        Accounts::new(&["a".to_owned(), "b".to_owned(), "c".to_owned(), "a".to_owned()], 1)
    }

    fn used(accounts: &mut Accounts, now: Instant, outcome: Outcome) -> String {
        let index = accounts.take(now).unwrap();
        accounts.give_back(index, outcome, now);
        accounts.address(index).to_owned()
    }

    #[test]
    fn accounts_take_turns() {
        let (mut accounts, now) = (three(), Instant::now());
        let turns: Vec<String> = (0..4).map(|_| used(&mut accounts, now, Outcome::Taken)).collect();
        assert_eq!(turns, ["a", "b", "c", "a"]);
    }

    #[test]
    fn an_account_has_no_more_under_way_than_it_may() {
        let (mut accounts, now) = (three(), Instant::now());
        let taken: Vec<usize> = (0..3).map(|_| accounts.take(now).unwrap()).collect();
        assert_eq!((taken, accounts.take(now)), (vec![0, 1, 2], None));
        accounts.give_back(1, Outcome::Taken, now);
        assert_eq!(accounts.take(now), Some(1));
        let mut two_each = Accounts::new(&["a".to_owned()], 2);
        assert_eq!([two_each.take(now), two_each.take(now), two_each.take(now)], [Some(0), Some(0), None]);
    }

    #[test]
    fn a_refused_account_rests_longer_each_time_while_others_go_on() {
        let (mut accounts, now) = (three(), Instant::now());
        assert_eq!(used(&mut accounts, now, Outcome::Refused), "a");
        let turns: Vec<String> = (0..4).map(|_| used(&mut accounts, now, Outcome::Taken)).collect();
        assert_eq!(turns, ["b", "c", "b", "c"]);
        let later = now + Duration::from_secs(2);
        assert_eq!(used(&mut accounts, later, Outcome::Refused), "a", "its rest is over");
        let turns: Vec<String> = (0..2)
            .map(|_| used(&mut accounts, later + Duration::from_millis(1_500), Outcome::Taken))
            .collect();
        assert_eq!(turns, ["b", "c"], "the second rest is longer");
        let rested = later + Duration::from_secs(3);
        assert_eq!(used(&mut accounts, rested, Outcome::Taken), "a");
    }

    #[test]
    fn when_all_rest_the_one_that_rests_the_shortest_is_used() {
        let (mut accounts, now) = (three(), Instant::now());
        for millis in [30, 10, 20] {
            used(&mut accounts, now + Duration::from_millis(millis), Outcome::Refused);
        }
        assert_eq!(used(&mut accounts, now + Duration::from_millis(40), Outcome::Refused), "b");
    }

    #[test]
    fn an_outcome_nobody_knows_is_a_short_rest() {
        let (mut accounts, now) = (three(), Instant::now());
        assert_eq!(used(&mut accounts, now, Outcome::Unknown), "a");
        assert_eq!(used(&mut accounts, now, Outcome::Taken), "b");
        assert_eq!(used(&mut accounts, now, Outcome::Failed), "c");
        assert_eq!(used(&mut accounts, now, Outcome::Taken), "b", "a rests, b's turn was before c's");
        assert_eq!(used(&mut accounts, now + Duration::from_secs(1), Outcome::Taken), "a");
    }

    #[test]
    fn only_what_is_the_accounts_fault_sends_it_to_rest() {
        let words = String::new;
        assert_eq!(Outcome::of(&Ok(())), Outcome::Taken);
        assert_eq!(Outcome::of::<()>(&Err(DaError::AccountSequence(words()))), Outcome::Refused);
        assert_eq!(Outcome::of::<()>(&Err(DaError::Other(words()))), Outcome::Refused);
        assert_eq!(Outcome::of::<()>(&Err(DaError::TooBig(words()))), Outcome::Failed);
        assert_eq!(Outcome::of::<()>(&Err(DaError::Unavailable(words()))), Outcome::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_all_accounts_busy_waits_for_the_first_to_come_back() {
        let payers = Payers::new(Accounts::new(&["a".to_owned()], 1), Metrics::default());
        let first = payers.next().await.unwrap();
        let waits = tokio::time::timeout(Duration::from_secs(9), payers.next()).await;
        assert!(waits.is_err(), "two submissions of one account");
        let (next, ()) = tokio::join!(payers.next(), async {
            tokio::task::yield_now().await;
            first.end(Outcome::Taken);
        });
        assert_eq!(next.unwrap().address, "a");
        let label = AccountLabel { account: "a".to_owned() };
        assert_eq!(payers.metrics.submissions.get_or_create(&label).get(), 1);
        assert_eq!(payers.metrics.in_flight.get_or_create(&label).get(), 0, "dropped is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn without_accounts_the_da_node_chooses() {
        assert!(Payers::new(Accounts::new(&[], 1), Metrics::default()).next().await.is_none());
    }
}
